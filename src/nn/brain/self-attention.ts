/** Self-attention among the positions of feature maps, and among the maps. */
import { attentionWeights, dotProductAttention } from '../../graph/ops/dot-product-attention.ts'
import { add } from '../../graph/ops/elementwise.ts'
import { matMul } from '../../graph/ops/reduce.ts'
import { concat } from '../../graph/ops/shape.ts'
import { checkInteger, UsageError } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition } from '../layer.ts'
import { mapsOf, positions, projected } from './tokens.ts'

export interface PixelAttentionOptions {
  readonly name?: string
  /** D, the length of queries and keys. Default: the number of channels. */
  readonly keyDim?: number
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
  /**
   * Of W_v. With `'zeros'` the layer begins as the identity, and learns what to add. Default: as the others.
   */
  readonly valueInitializer?: Initializer | InitializerName
}

/**
 * Every position attends to all H W positions of its image; all channels of a position have one weight. With
 * the positions as tokens X [H W, C]
 *
 *     Y = X + softmax(X W_q (X W_k)' / sqrt(D)) X W_v
 *
 * [N, H, W, C] to the same shape. Parameters query and key [C, D], value [C, C], without bias.
 *
 * Bui and Chauhan, VisionNet (a course report), architecture 2. Assumed: D, which the report leaves out; that
 * its weights depend on the number of channels follows from its remark that the dimensions keep them from
 * being shared between layers.
 *
 * @throws UsageError where an option is out of range
 */
export function pixelAttention(options: PixelAttentionOptions = {}) {
  const { name, keyDim } = options
  if (keyDim !== undefined) checkInteger('pixelAttention', 'keyDim', keyDim, 1)
  const kernelInitializer = toInitializer(options.kernelInitializer ?? 'glorotUniform')
  const valueInitializer =
    options.valueInitializer === undefined ? undefined : toInitializer(options.valueInitializer)
  return describe({ layer: 'pixelAttention', name, keyDim, kernelInitializer, valueInitializer })
}

export const pixelAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof pixelAttention>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const channels = x.shape[3]!
    const keyDim = layer.keyDim ?? channels
    const tokens = positions(x)
    const [query, key] = ['query', 'key'].map(name =>
      scope.parameter(name, [channels, keyDim], { initializer: layer.kernelInitializer }),
    )
    const ofValues = { kernelInitializer: layer.valueInitializer ?? layer.kernelInitializer }
    const values = projected(scope, 'value', tokens, channels, ofValues)
    // X W_q (X W_k)' = X (W_q W_k') X': unless keys are shorter than tokens, tokens as keys take a projection less.
    const [queries, keys] =
      keyDim < channels
        ? [matMul(tokens, query!), matMul(tokens, key!)]
        : [matMul(tokens, matMul(query!, key!, { transB: true })), tokens]
    return add(x, mapsOf(dotProductAttention(queries, keys, values, keyDim ** -0.5), x))
  },
}

export interface MapAttentionOptions {
  readonly name?: string
  /** D, the length of queries and keys. Default: 64. */
  readonly keyDim?: number
  /** How input and result are joined: `'concatenate'` along the channels (default), or `'add'`. */
  readonly join?: 'concatenate' | 'add'
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/**
 * Every feature map attends to all C maps of its image. With the maps as tokens X [C, H W],
 * which are their own values,
 *
 *     Y = softmax(X W_q (X W_k)' / sqrt(D)) X
 *
 * is appended to X: [N, H, W, C] to [N, H, W, 2 C], or added to it. Parameters query and key [H W, D],
 * without bias: the size of the maps is fixed.
 *
 * Bui and Chauhan, VisionNet (a course report), architecture 3. Assumed: D, which the report leaves out.
 *
 * @throws UsageError where an option is out of range
 */
export function mapAttention(options: MapAttentionOptions = {}) {
  const { name, keyDim = 64, join = 'concatenate' } = options
  checkInteger('mapAttention', 'keyDim', keyDim, 1)
  if (join !== 'concatenate' && join !== 'add')
    throw new UsageError(`mapAttention: join must be "concatenate" or "add", received "${join}"`)
  const kernelInitializer = toInitializer(options.kernelInitializer ?? 'glorotUniform')
  return describe({ layer: 'mapAttention', name, keyDim, join, kernelInitializer })
}

export const mapAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof mapAttention>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const { keyDim, join } = layer
    const columns = positions(x) // [N, H W, C]: the maps are its columns
    const [query, key] = ['query', 'key'].map(name =>
      projected(scope, name, columns, keyDim, layer, { transA: true }),
    )
    const weights = attentionWeights(query!, key!, keyDim ** -0.5) // [N, C, C]
    const attended = mapsOf(matMul(columns, weights, { transB: true }), x)
    return join === 'add' ? add(x, attended) : concat([x, attended], 3)
  },
}
