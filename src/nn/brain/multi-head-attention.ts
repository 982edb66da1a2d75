/** Multi-head self-attention among the positions of feature maps. */
import { dotProductAttention } from '../../graph/ops/dot-product-attention.ts'
import { reshape, transpose } from '../../graph/ops/shape.ts'
import { checkInteger } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition } from '../layer.ts'
import { checkFlag } from '../options.ts'
import { linear, mapsOf, positions } from './tokens.ts'

export interface MultiHeadAttentionOptions {
  readonly name?: string
  /** H, the number of heads. */
  readonly numHeads: number
  /** D, the length of a head's queries, keys and values. */
  readonly keyDim: number
  /** Default: true. */
  readonly useBias?: boolean
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/**
 * Y = sum over heads h of softmax(Q_h K_h' / sqrt(D)) V_h O_h + b, where Q_h = X W_h + b_h, and K_h and V_h
 * alike, for the positions X [H W, C] of an image. [N, H, W, C] to the same shape; the input is not added
 * (`add()` does). Positions are not encoded. Parameters query/kernel, key/kernel, value/kernel [C, H, D],
 * output/kernel [H, D, C], and with `useBias` query/bias, key/bias, value/bias [H, D] and output/bias [C].
 *
 * Vaswani et al. 2017, arXiv 1706.03762; Keras's MultiHeadAttention(x, x), its defaults
 * and its weights' shapes.
 *
 * @throws UsageError where an option is out of range
 */
export function multiHeadAttention(options: MultiHeadAttentionOptions) {
  const { name, numHeads, keyDim, useBias = true } = options
  checkInteger('multiHeadAttention', 'numHeads', numHeads, 1)
  checkInteger('multiHeadAttention', 'keyDim', keyDim, 1)
  checkFlag('multiHeadAttention', 'useBias', useBias)
  const kernelInitializer = toInitializer(options.kernelInitializer ?? 'glorotUniform')
  return describe({ layer: 'multiHeadAttention', name, numHeads, keyDim, useBias, kernelInitializer })
}

export const multiHeadAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof multiHeadAttention>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const { numHeads, keyDim } = layer
    const channels = x.shape[3]!
    const width = numHeads * keyDim
    const tokens = positions(x) // [N, T, C]
    const [n, t] = tokens.shape as unknown as readonly [number, number]
    const heads = (part: string) => {
      const shapes = { kernel: [channels, numHeads, keyDim], bias: [numHeads, keyDim] }
      const y = linear(scope.part(part), tokens, shapes, layer)
      return transpose(reshape(y, [n, t, numHeads, keyDim]), [0, 2, 1, 3]) // [N, H, T, D]
    }
    const [query, key, value] = ['query', 'key', 'value'].map(heads)
    const ofHeads = dotProductAttention(query!, key!, value!, keyDim ** -0.5)
    const mixed = reshape(transpose(ofHeads, [0, 2, 1, 3]), [n, t, width])
    const shapes = { kernel: [numHeads, keyDim, channels], bias: [channels] }
    return mapsOf(linear(scope.part('output'), mixed, shapes, layer), x)
  },
}
