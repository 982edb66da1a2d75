/** Pooling layers on feature maps [N, H, W, C]. */
import { averagePool, maxPool } from '../../graph/ops/pool.ts'
import { reduceMax, reduceMean } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import type { Pair } from '../../graph/ops/window.ts'
import { describe, featureMaps, type LayerDefinition } from '../layer.ts'
import { layerWindow, type Padding, pairOf, windowOptions } from './convolution.ts'

export interface PoolingOptions {
  readonly name?: string
  /** Height and width of the window. Default: 2. */
  readonly poolSize?: number | Pair
  /** Default: poolSize, so that windows don't overlap. */
  readonly strides?: number | Pair
  /** Default: `'valid'`. */
  readonly padding?: Padding
}

function poolingOptions(
  where: string,
  { name, poolSize = 2, strides = poolSize, padding = 'valid' }: PoolingOptions,
) {
  const kernelSize = pairOf(where, 'poolSize', poolSize)
  return { name, ...windowOptions(where, { kernelSize, strides, padding }) }
}

/** The maximum of each window. [N, H, W, C] to [N, H', W', C]. Keras's MaxPooling2D and its defaults. */
export function maxPooling2d(options: PoolingOptions = {}) {
  return describe({ layer: 'maxPooling2d', ...poolingOptions('maxPooling2d', options) })
}

export const maxPooling2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof maxPooling2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    return maxPool(x, layerWindow(layer, scope, x))
  },
}

/** The mean of each window; padding does not count. Keras's AveragePooling2D and its defaults. */
export function averagePooling2d(options: PoolingOptions = {}) {
  return describe({ layer: 'averagePooling2d', ...poolingOptions('averagePooling2d', options) })
}

export const averagePooling2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof averagePooling2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    return averagePool(x, layerWindow(layer, scope, x))
  },
}

/** The mean of each channel over space: [N, H, W, C] to [N, C]. Keras's GlobalAveragePooling2D. */
export function globalAveragePooling2d(options: { readonly name?: string } = {}) {
  return describe({ layer: 'globalAveragePooling2d', name: options.name })
}

export const globalAveragePooling2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof globalAveragePooling2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    return reshape(reduceMean(x, [0, 1]), x.shape.slice(2))
  },
}

/** The maximum of each channel over space: [N, H, W, C] to [N, C]. Keras's GlobalMaxPooling2D. */
export function globalMaxPooling2d(options: { readonly name?: string } = {}) {
  return describe({ layer: 'globalMaxPooling2d', name: options.name })
}

export const globalMaxPooling2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof globalMaxPooling2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    return reshape(reduceMax(x, [0, 1]), x.shape.slice(2))
  },
}
