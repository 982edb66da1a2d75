/** CBAM, the convolutional block attention module: which channels matter, then which positions. */
import type { Tensor } from '../../graph/node.ts'
import { conv } from '../../graph/ops/conv.ts'
import { add, mul, sigmoid } from '../../graph/ops/elementwise.ts'
import { reduceMax, reduceMean } from '../../graph/ops/reduce.ts'
import { concat, reshape, split } from '../../graph/ops/shape.ts'
import { windowOf } from '../../graph/ops/window.ts'
import { checkInteger } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition, type Scope } from '../layer.ts'
import { type ChannelGateOptions, channelGate, channelGateOptions } from './channel-gate.ts'

export interface ChannelAttentionOptions extends ChannelGateOptions {
  readonly name?: string
}

/**
 * y_c = s_c x_c, s = sigmoid(g(mean) + g(max)), g(z) = relu(z W_1 + b_1) W_2 + b_2: mean and maximum of each
 * channel over the map go through the same hidden layer. [N, H, W, C] to the same shape. Parameters
 * squeeze/kernel [C, C / r], excite/kernel [C / r, C], and with `useBias` squeeze/bias and excite/bias. Equal
 * maxima share the gradient.
 *
 * Woo et al. 2018, CBAM, arXiv 1807.06521, equation 2, which has no biases; the authors'
 * code has them (`useBias`).
 *
 * @throws UsageError where an option is out of range
 */
export function channelAttention(options: ChannelAttentionOptions = {}) {
  const gate = channelGateOptions('channelAttention', options)
  return describe({ layer: 'channelAttention', name: options.name, ...gate })
}

export const channelAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof channelAttention>, inputs, scope) {
    return byChannel(featureMaps(layer, inputs, scope), scope, layer)
  },
}

export interface SpatialAttentionOptions {
  readonly name?: string
  /** k: the convolution reads k x k positions. Default: 7. */
  readonly kernelSize?: number
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/**
 * y_p = s_p x_p, s = sigmoid(W * [mean; max]): mean and maximum over the channels at each position, two maps,
 * go through a convolution that keeps their size. [N, H, W, C] to the same shape. Parameter kernel
 * [k, k, 2, 1], for the mean and the maximum in this order, without bias. Equal maxima share the gradient.
 *
 * Woo et al. 2018, CBAM, arXiv 1807.06521, equation 3. The authors' code puts batch normalization after the
 * convolution, of which the paper says nothing, and the maximum before the mean.
 *
 * @throws UsageError where an option is out of range
 */
export function spatialAttention(options: SpatialAttentionOptions = {}) {
  return describe({
    layer: 'spatialAttention',
    name: options.name,
    ...spatialOptions('spatialAttention', options),
  })
}

function spatialOptions(where: string, options: SpatialAttentionOptions) {
  const { kernelSize = 7 } = options
  checkInteger(where, 'kernelSize', kernelSize, 1)
  return { kernelSize, kernelInitializer: toInitializer(options.kernelInitializer ?? 'glorotUniform') }
}

export const spatialAttentionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof spatialAttention>, inputs, scope) {
    return byPosition(featureMaps(layer, inputs, scope), scope, layer)
  },
}

export interface CbamOptions extends ChannelAttentionOptions, SpatialAttentionOptions {}

/**
 * `channelAttention`, then `spatialAttention` of its result. [N, H, W, C] to the same shape. Parameters
 * channel/squeeze/kernel [C, C / r], channel/excite/kernel [C / r, C], spatial/kernel [k, k, 2, 1], and with
 * `useBias` channel/squeeze/bias and channel/excite/bias.
 *
 * Woo et al. 2018, arXiv 1807.06521, equation 1; in a residual network it stands at the end of a block's
 * branch, before the addition. See the two layers for where the authors' code departs from the paper.
 *
 * @throws UsageError where an option is out of range
 */
export function cbam(options: CbamOptions = {}) {
  return describe({
    layer: 'cbam',
    name: options.name,
    ...channelGateOptions('cbam', options),
    ...spatialOptions('cbam', options),
  })
}

export const cbamDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof cbam>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    return byPosition(byChannel(x, scope.part('channel'), layer), scope.part('spatial'), layer)
  },
}

function byChannel(x: Tensor, scope: Scope, layer: ReturnType<typeof channelGateOptions>): Tensor {
  const [, , n, c] = x.shape as unknown as readonly [number, number, number, number]
  const statistics = [reduceMean(x, [0, 1]), reduceMax(x, [0, 1])].map(z => reshape(z, [n, c]))
  // As one minibatch of 2 N rows: the hidden layer is the same for both.
  const [mean, most] = split(channelGate(scope, concat(statistics, 0), layer), 0, [n, n])
  return mul(x, sigmoid(add(mean!, most!)))
}

function byPosition(x: Tensor, scope: Scope, layer: ReturnType<typeof spatialOptions>): Tensor {
  const { kernelSize, kernelInitializer: initializer } = layer
  const kernel = scope.parameter('kernel', [kernelSize, kernelSize, 2, 1], { initializer })
  const statistics = concat([reduceMean(x, [3]), reduceMax(x, [3])], 3) // [H, W, N, 2]
  const size = [x.shape[0]!, x.shape[1]!] as const
  const window = windowOf(scope.path, size, [kernelSize, kernelSize], [1, 1], 'same')
  return mul(x, sigmoid(conv(statistics, kernel, undefined, window)))
}
