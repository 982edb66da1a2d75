/** Attention among positions through a bottleneck of channels: non-local blocks and SAGAN's. */
import type { Tensor } from '../../graph/node.ts'
import { dotProductAttention } from '../../graph/ops/dot-product-attention.ts'
import { add, mul } from '../../graph/ops/elementwise.ts'
import { checkInteger } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition, type Scope } from '../layer.ts'
import { mapsOf, positions, projected, reducedChannels } from './tokens.ts'

export interface NonLocalOptions {
  readonly name?: string
  /** The bottleneck has C / reduction channels, rounded down, and at least one. Default: 2. */
  readonly reduction?: number
  /** Of the three projections into the bottleneck. Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/**
 * Y = X + softmax(X W_q (X W_k)') X W_v W_o over the positions X [H W, C] of an image: the embedded Gaussian.
 * Not scaled. [N, H, W, C] to the same shape. Parameters query, key and value [C, B], output [B, C], B = C /
 * reduction, without bias; output starts at zero, so that the layer starts as the identity.
 *
 * Wang et al. 2018, arXiv 1711.07971. Left out: biases, batch normalization after W_o, and
 * pooling of keys and values.
 *
 * @throws UsageError where an option is out of range
 */
export function nonLocal(options: NonLocalOptions = {}) {
  return describe({ layer: 'nonLocal', ...bottleneckOptions('nonLocal', 2, options) })
}

export interface SaganAttentionOptions extends Omit<NonLocalOptions, 'reduction'> {
  /** The bottleneck has C / reduction channels, rounded down, and at least one. Default: 8. */
  readonly reduction?: number
}

/**
 * Y = X + gamma softmax(X W_q (X W_k)') X W_v W_o over the positions X [H W, C] of an image. Not scaled.
 * [N, H, W, C] to the same shape. Parameters query, key and value [C, B], output [B, C], B = C / reduction,
 * without bias, and gamma [1], which starts at zero.
 *
 * Zhang et al. 2018, arXiv 1805.08318, SAGAN; without its spectral normalization.
 *
 * @throws UsageError where an option is out of range
 */
export function saganAttention(options: SaganAttentionOptions = {}) {
  return describe({ layer: 'saganAttention', ...bottleneckOptions('saganAttention', 8, options) })
}

function bottleneckOptions(where: string, usual: number, options: NonLocalOptions) {
  const { name, reduction = usual } = options
  checkInteger(where, 'reduction', reduction, 1)
  return {
    name,
    reduction,
    kernelInitializer: toInitializer(options.kernelInitializer ?? 'glorotUniform'),
  }
}

type Bottleneck = ReturnType<typeof nonLocal> | ReturnType<typeof saganAttention>

/** softmax(X W_q (X W_k)') X W_v W_o as feature maps. */
function attended(layer: Bottleneck, x: Tensor, scope: Scope, output: Initializer): Tensor {
  const channels = x.shape[3]!
  const width = reducedChannels(channels, layer.reduction)
  const tokens = positions(x)
  const narrow = (name: string) => projected(scope, name, tokens, width, layer)
  const mixed = dotProductAttention(narrow('query'), narrow('key'), narrow('value'))
  return mapsOf(projected(scope, 'output', mixed, channels, { kernelInitializer: output }), x)
}

export const nonLocalDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof nonLocal>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    return add(x, attended(layer, x, scope, toInitializer('zeros')))
  },
}

export const saganAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof saganAttention>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const change = attended(layer, x, scope, layer.kernelInitializer)
    return add(x, mul(change, scope.parameter('gamma', [1], { initializer: 'zeros' })))
  },
}
