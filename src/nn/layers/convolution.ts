/** Convolutional layers. Feature maps [N, H, W, C]; kernels [kH, kW, in / groups, out]. */
import type { Tensor } from '../../graph/node.ts'
import { conv } from '../../graph/ops/conv.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { type Pair, type WindowAttributes, windowOf } from '../../graph/ops/window.ts'
import { checkInteger, UsageError } from '../../util/errors.ts'
import { showShape } from '../../util/host-tensor.ts'
import { activate } from '../activations.ts'
import { describe, featureMaps, type Layer, type LayerDefinition, layerError, type Scope } from '../layer.ts'
import { type DenseOptions, kernelOptions } from './core.ts'

export type Padding = 'valid' | 'same'

/** Options that say where windows lie. */
export interface WindowOptions {
  /** Height and width, or one number for both. */
  readonly kernelSize: number | Pair
  /** Default: 1. */
  readonly strides?: number | Pair
  /** `'valid'`: none (default). `'same'`: ceil(extent / stride) outputs. */
  readonly padding?: Padding
  /** Distance between the cells of a window. Default: 1. */
  readonly dilationRate?: number | Pair
}

export interface Conv2dOptions extends WindowOptions, Omit<DenseOptions, 'units'> {
  /** Number of output channels. */
  readonly filters: number
  /** Splits channels into groups that don't see each other. Default: 1. */
  readonly groups?: number
}

/** One number for both axes, or a pair; whole and positive. */
export function pairOf(where: string, name: string, value: number | Pair): Pair {
  const pair = typeof value === 'number' ? ([value, value] as const) : value
  for (const extent of pair) checkInteger(where, name, extent, 1)
  return pair
}

/** Fills in the defaults of window options. */
export function windowOptions(where: string, options: WindowOptions) {
  const { padding = 'valid' } = options
  if (padding !== 'valid' && padding !== 'same')
    throw new UsageError(`${where}: padding must be "valid" or "same", received "${padding}"`)
  const strides = pairOf(where, 'strides', options.strides ?? 1)
  const dilationRate = pairOf(where, 'dilationRate', options.dilationRate ?? 1)
  if (Math.max(...strides) > 1 && Math.max(...dilationRate) > 1)
    throw new UsageError(
      `${where}: strides and dilationRate cannot both exceed 1, received ${showShape(strides)} and ${showShape(dilationRate)}`,
    )
  return { kernelSize: pairOf(where, 'kernelSize', options.kernelSize), strides, padding, dilationRate }
}

/** A layer's window on feature maps. */
export function layerWindow(
  layer: Layer & ReturnType<typeof windowOptions>,
  { path, convolution }: Scope,
  x: Tensor,
): WindowAttributes {
  const size = [x.shape[0]!, x.shape[1]!] as const
  const window = windowOf(
    `${layer.layer} "${path}"`,
    size,
    layer.kernelSize,
    layer.strides,
    layer.padding,
    layer.dilationRate,
  )
  return convolution ? { ...window, method: convolution } : window
}

/**
 * Convolution: y[o, k] = activation(b[k] + sum over taps t and channels c of x[o s + t d - p, c] w[t, c, k]).
 * [N, H, W, C] to [N, H', W', filters]. Keras's Conv2D and its defaults.
 *
 * @throws UsageError for options that are no positive whole numbers, or groups that don't divide the filters
 */
export function conv2d(options: Conv2dOptions) {
  const { filters, groups = 1, name } = options
  checkInteger('conv2d', 'filters', filters, 1)
  checkInteger('conv2d', 'groups', groups, 1)
  if (filters % groups !== 0)
    throw new UsageError(`conv2d: groups must divide filters, received ${groups} and ${filters}`)
  return describe({
    layer: 'conv2d',
    name,
    filters,
    groups,
    ...windowOptions('conv2d', options),
    ...kernelOptions(options),
  })
}

export const conv2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof conv2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const channels = x.shape[3]!
    const { filters, groups, kernelSize } = layer
    if (channels % groups !== 0)
      throw layerError(
        layer,
        scope,
        `groups ${groups} must divide the input's channels, received ${channels}`,
      )
    const kernel = scope.parameter('kernel', [...kernelSize, channels / groups, filters], {
      initializer: layer.kernelInitializer,
      regularizer: layer.kernelRegularizer,
    })
    const bias = layer.useBias
      ? scope.parameter('bias', [filters], { initializer: layer.biasInitializer })
      : undefined
    return activate(conv(x, kernel, bias, layerWindow(layer, scope, x), groups), layer.activation)
  },
}

export interface DepthwiseConv2dOptions extends WindowOptions, Omit<DenseOptions, 'units'> {
  /** Output channels for each input channel. Default: 1. */
  readonly depthMultiplier?: number
}

/**
 * A convolution of each channel by itself: output channel c m + j has kernel [:, :, c, j].
 * [N, H, W, C] to [N, H', W', C m]; kernel [kH, kW, C, m]. Keras's DepthwiseConv2D and its defaults.
 */
export function depthwiseConv2d(options: DepthwiseConv2dOptions) {
  const { depthMultiplier = 1, name } = options
  checkInteger('depthwiseConv2d', 'depthMultiplier', depthMultiplier, 1)
  return describe({
    layer: 'depthwiseConv2d',
    name,
    depthMultiplier,
    ...windowOptions('depthwiseConv2d', options),
    ...kernelOptions(options),
  })
}

export const depthwiseConv2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof depthwiseConv2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const outputs = x.shape[3]! * layer.depthMultiplier
    const kernel = depthwiseKernel(layer, x, scope, 'kernel')
    const bias = layer.useBias
      ? scope.parameter('bias', [outputs], { initializer: layer.biasInitializer })
      : undefined
    return activate(conv(x, kernel, bias, layerWindow(layer, scope, x), x.shape[3]!), layer.activation)
  },
}

/** The parameter [kH, kW, C, m], as the grouped kernel [kH, kW, 1, C m] that the op takes. */
function depthwiseKernel(
  layer: ReturnType<typeof depthwiseConv2d> | ReturnType<typeof separableConv2d>,
  x: Tensor,
  scope: Scope,
  name: string,
): Tensor {
  const channels = x.shape[3]!
  const kernel = scope.parameter(name, [...layer.kernelSize, channels, layer.depthMultiplier], {
    initializer: layer.kernelInitializer,
    regularizer: layer.kernelRegularizer,
  })
  return reshape(kernel, [...layer.kernelSize, 1, channels * layer.depthMultiplier])
}

export interface SeparableConv2dOptions extends DepthwiseConv2dOptions {
  /** Number of output channels. */
  readonly filters: number
}

/**
 * A depthwise convolution, then a 1x1 convolution that mixes channels. [N, H, W, C] to [N, H', W', filters];
 * depthwiseKernel [kH, kW, C, m], pointwiseKernel [1, 1, C m, filters]. Keras's SeparableConv2D and its
 * defaults; the initializer and the regularizer hold for both kernels.
 */
export function separableConv2d(options: SeparableConv2dOptions) {
  const { filters, depthMultiplier = 1, name } = options
  checkInteger('separableConv2d', 'filters', filters, 1)
  checkInteger('separableConv2d', 'depthMultiplier', depthMultiplier, 1)
  return describe({
    layer: 'separableConv2d',
    name,
    filters,
    depthMultiplier,
    ...windowOptions('separableConv2d', options),
    ...kernelOptions(options),
  })
}

export const separableConv2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof separableConv2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const { filters, kernelInitializer, kernelRegularizer } = layer
    const depthwise = depthwiseKernel(layer, x, scope, 'depthwiseKernel')
    const maps = conv(x, depthwise, undefined, layerWindow(layer, scope, x), x.shape[3]!)
    const pointwise = scope.parameter('pointwiseKernel', [1, 1, maps.shape[3]!, filters], {
      initializer: kernelInitializer,
      regularizer: kernelRegularizer,
    })
    const bias = layer.useBias
      ? scope.parameter('bias', [filters], { initializer: layer.biasInitializer })
      : undefined
    const window = windowOf(layer.layer, [maps.shape[0]!, maps.shape[1]!], [1, 1], [1, 1], 'valid')
    return activate(conv(maps, pointwise, bias, window), layer.activation)
  },
}
