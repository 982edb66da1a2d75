/** Self-attention among all values of an image's feature maps. */
import { scalarAttention } from '../../graph/ops/attention.ts'
import { batchInward, batchOutward } from '../../graph/ops/batch-axis.ts'
import { add, mul } from '../../graph/ops/elementwise.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { checkInteger, UsageError } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition, layerError } from '../layer.ts'

export interface ValueAttentionOptions {
  readonly name?: string
  /** Layers of a model that have the same name here have their three weights in common. Default: none. */
  readonly shared?: string
  /**
   * `'exact'`: every pair of values is weighed. `'grid'`: the response to a query is computed at
   * `intervals + 1` queries and read in between. Default: `'auto'`, exact for up to 1,024 values an image.
   */
  readonly evaluation?: 'auto' | 'exact' | 'grid'
  /** Intervals of the grid. Default: 64. */
  readonly intervals?: number
  /** The most scores that exist at once, over the whole batch. Default: 2^24, 64 MiB. */
  readonly scoresAtOnce?: number
  /** Of the three weights. Default: `'glorotUniform'`, within sqrt(3) of 0. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/**
 * With more values than these a grid is many times faster. Of 64 intervals, it errs by less than 3e-5 of the
 * values' range where scores range over 20 or less.
 */
export const EXACT_VALUES = 1024

export const GRID_INTERVALS = 64

/** Beyond these a program would be too large to load in reasonable time. */
const MOST_BLOCKS = 1024

/**
 * Every value of an image attends to all H W C values of it: with q = w_q x, k = w_k x, v = w_v x
 *
 *     y_i = x_i + sum_j softmax_j(q_i k_j) v_j
 *
 * [N, H, W, C] to the same shape. Parameters query, key and value [1]: kernels of 1x1x1, without bias. The
 * scores, (H W C)^2 an image, exist only block by block, `scoresAtOnce` at a time or one score for each value
 * of the batch where that is more; a training step computes them again instead of keeping them. On a grid of
 * K intervals the sum errs by at most 0.09 |w_v| R (L / (2.4 K))^4, R the range of the image's values and
 * L = |w_q w_k| R^2 that of its scores, beside float32's rounding.
 *
 * Bui and Chauhan, VisionNet (a course report), architecture 1. Assumed: no scaling, since a key has one
 * dimension; no bias; the initializer. The report has the same three weights in all layers: `shared`.
 *
 * @throws UsageError where an option is out of range
 */
export function valueAttention(options: ValueAttentionOptions = {}) {
  const { name, shared, evaluation = 'auto', intervals = GRID_INTERVALS, scoresAtOnce = 2 ** 24 } = options
  if (!['auto', 'exact', 'grid'].includes(evaluation))
    throw new UsageError(
      `valueAttention: evaluation must be "auto", "exact" or "grid", received "${evaluation}"`,
    )
  checkInteger('valueAttention', 'intervals', intervals, 1)
  checkInteger('valueAttention', 'scoresAtOnce', scoresAtOnce, 1)
  const kernelInitializer = toInitializer(options.kernelInitializer ?? 'glorotUniform')
  return describe({
    layer: 'valueAttention',
    name,
    shared,
    evaluation,
    intervals,
    scoresAtOnce,
    kernelInitializer,
  })
}

export const valueAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof valueAttention>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const [h, w, n, c] = x.shape as unknown as readonly [number, number, number, number]
    const owner = layer.shared === undefined ? scope : scope.shared(layer.shared)
    const weight = (name: string) => owner.parameter(name, [1], { initializer: layer.kernelInitializer })
    const scale = mul(weight('query'), weight('key'))
    const values = h * w * c
    const exact = layer.evaluation === 'exact' || (layer.evaluation === 'auto' && values <= EXACT_VALUES)
    const intervals = exact ? 0 : layer.intervals
    const rows = Math.max(1, Math.floor(layer.scoresAtOnce / (n * values)))
    const blocks = Math.ceil((exact ? values : intervals + 1) / rows)
    if (blocks > MOST_BLOCKS)
      throw layerError(
        layer,
        scope,
        `${n} images of ${values} values in blocks of ${layer.scoresAtOnce} scores are ${blocks} blocks, at most ${MOST_BLOCKS} are possible; use evaluation "grid", fewer images in a batch or more scoresAtOnce`,
      )
    const flat = reshape(batchOutward(x), [n, values])
    const attended = scalarAttention(flat, scale, { intervals, scoresAtOnce: layer.scoresAtOnce })
    return add(x, batchInward(reshape(mul(attended, weight('value')), [n, h, w, c])))
  },
}
