/** Normalization layers. They act on the last axis: channels, or features. */
import type { Tensor } from '../../graph/node.ts'
import { add, mul, reciprocal, sqrt, sub } from '../../graph/ops/elementwise.ts'
import { batchNormalization as normalizeBatch } from '../../graph/ops/normalize.ts'
import { reduceMean } from '../../graph/ops/reduce.ts'
import { filled } from '../../graph/ops/source.ts'
import { checkRange } from '../../util/errors.ts'
import { describe, type LayerDefinition, only, type Scope } from '../layer.ts'

export interface BatchNormalizationOptions {
  readonly name?: string
  /** Of the moving averages. Default: 0.99. */
  readonly momentum?: number
  /** Added to the variance. Default: 1e-3. */
  readonly epsilon?: number
  /** Learn an offset beta. Default: true. */
  readonly center?: boolean
  /** Learn a scale gamma. Default: true. */
  readonly scale?: boolean
}

/**
 * y = gamma (x - mean) / sqrt(variance + epsilon) + beta, for each channel over all other axes: the batch's
 * own statistics in training, moving averages in evaluation and in a frozen layer. Any shape. Parameters
 * gamma, beta [C]; buffers movingMean, movingVariance [C] (biased variance, as Keras). Ioffe and Szegedy
 * 2015; Keras's BatchNormalization and its defaults.
 */
export function batchNormalization(options: BatchNormalizationOptions = {}) {
  const { name, momentum = 0.99, epsilon = 1e-3, center = true, scale = true } = options
  checkRange('batchNormalization', 'momentum', momentum, 0, 1)
  checkRange('batchNormalization', 'epsilon', epsilon, 0)
  return describe({ layer: 'batchNormalization', name, momentum, epsilon, center, scale })
}

/** The scale and the offset of a normalization; constants where they are not learned. */
function affine(
  layer: { readonly center: boolean; readonly scale: boolean },
  channels: number,
  scope: Scope,
) {
  const gamma = layer.scale
    ? scope.parameter('gamma', [channels], { initializer: 'ones' })
    : filled([channels], 1)
  const beta = layer.center
    ? scope.parameter('beta', [channels], { initializer: 'zeros' })
    : filled([channels], 0)
  return { gamma, beta }
}

export const batchNormalizationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof batchNormalization>, inputs, scope) {
    const x = only(layer, inputs, scope)
    const channels = x.shape.at(-1)!
    const { gamma, beta } = affine(layer, channels, scope)
    const movingMean = scope.buffer('movingMean', [channels], { initial: () => new Float32Array(channels) })
    const movingVariance = scope.buffer('movingVariance', [channels], {
      initial: () => new Float32Array(channels).fill(1),
    })
    if (!scope.training || !scope.trainable) {
      const factor = mul(gamma, reciprocal(sqrt(add(movingVariance, layer.epsilon))))
      return add(mul(x, factor), sub(beta, mul(movingMean, factor)))
    }
    const { y, mean, variance } = normalizeBatch(x, gamma, beta, layer.epsilon)
    const moved = (average: Tensor, value: Tensor) =>
      add(mul(average, layer.momentum), mul(value, 1 - layer.momentum))
    scope.update('movingMean', moved(movingMean, mean))
    scope.update('movingVariance', moved(movingVariance, variance))
    return y
  },
}

export interface LayerNormalizationOptions {
  readonly name?: string
  /** Added to the variance. Default: 1e-3. */
  readonly epsilon?: number
  /** Learn an offset beta. Default: true. */
  readonly center?: boolean
  /** Learn a scale gamma. Default: true. */
  readonly scale?: boolean
}

/**
 * y = gamma (x - mean) / sqrt(variance + epsilon) + beta, over the last axis of each position and image by
 * itself. Any shape. Ba 2016, arXiv 1607.06450; Keras's LayerNormalization and its defaults.
 */
export function layerNormalization(options: LayerNormalizationOptions = {}) {
  const { name, epsilon = 1e-3, center = true, scale = true } = options
  checkRange('layerNormalization', 'epsilon', epsilon, 0)
  return describe({ layer: 'layerNormalization', name, epsilon, center, scale })
}

export const layerNormalizationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof layerNormalization>, inputs, scope) {
    const x = only(layer, inputs, scope)
    const { gamma, beta } = affine(layer, x.shape.at(-1)!, scope)
    const centred = sub(x, reduceMean(x, [-1]))
    const variance = reduceMean(mul(centred, centred), [-1])
    const standardized = mul(centred, reciprocal(sqrt(add(variance, layer.epsilon))))
    return add(mul(standardized, gamma), beta)
  },
}
