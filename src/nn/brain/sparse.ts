/** Sparse connectivity: dense and convolutional layers that keep some of their connections. */
import { conv } from '../../graph/ops/conv.ts'
import { add, mul } from '../../graph/ops/elementwise.ts'
import { vectorsTimes } from '../../graph/ops/flattened.ts'
import { checkInteger, UsageError } from '../../util/errors.ts'
import { type Shape, sizeOf } from '../../util/host-tensor.ts'
import { activate } from '../activations.ts'
import { fansOf } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition, type Scope, vectors } from '../layer.ts'
import { type Conv2dOptions, layerWindow, windowOptions } from '../layers/convolution.ts'
import { type DenseOptions, kernelOptions } from '../layers/core.ts'
import { type Connectivity, connectionMask, expectedDensity, toConnectivity } from './connectivity.ts'

interface SparseOptions {
  /** `bernoulli({ density })`, `fixedFanIn({ fanIn })` or `topographic({ radius })`. */
  readonly connectivity: Connectivity
  /** `'epoch'`: other connections in each epoch. Default: the same ones for good. */
  readonly redraw?: 'epoch'
}

export interface SparseDenseOptions extends DenseOptions, SparseOptions {}
export interface SparseConv2dOptions extends Omit<Conv2dOptions, 'groups'>, SparseOptions {}

function sparseOptions(where: string, { connectivity, redraw }: SparseOptions) {
  if (redraw !== undefined && redraw !== 'epoch')
    throw new UsageError(`${where}: redraw must be "epoch" or left out, received "${redraw}"`)
  const checked = toConnectivity(connectivity)
  if (redraw && checked.connectivity === 'topographic')
    throw new UsageError(`${where}: topographic connectivity is not drawn, so that redraw has no meaning`)
  return { connectivity: checked, redraw }
}

/**
 * y = activation(x (W * mask) + b): a dense layer that keeps some connections, in training and in evaluation.
 * [N, F] to [N, units]; kernel [F, units], bias [units], buffer mask [F, units] of 0 and 1. Options and
 * defaults are those of `dense`. The initializer counts a unit's inputs after masking (on average, where they
 * are drawn one by one); a regularizer sees all weights, the masked ones too.
 *
 * @throws UsageError where units or the connectivity are out of range
 */
export function sparseDense(options: SparseDenseOptions) {
  const { name, units } = options
  checkInteger('sparseDense', 'units', units, 1)
  const sparse = sparseOptions('sparseDense', options)
  return describe({ layer: 'sparseDense', name, units, ...sparse, ...kernelOptions(options) })
}

export const sparseDenseDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof sparseDense>, inputs, scope) {
    const x = vectors(layer, inputs, scope)
    const y = vectorsTimes(x, maskedKernel(layer, [x.shape[1]!, layer.units], scope))
    if (!layer.useBias) return activate(y, layer.activation)
    const bias = scope.parameter('bias', [layer.units], { initializer: layer.biasInitializer })
    return activate(add(y, bias), layer.activation)
  },
}

/**
 * conv2d with kernel * mask: a convolution that keeps some connections, in training and in evaluation.
 * [N, H, W, C] to [N, H', W', filters]; buffer mask of the kernel's shape [kH, kW, C, filters],
 * of 0 and 1. Options and defaults are those of `conv2d`, without groups; initializer and
 * regularizer as in `sparseDense`.
 *
 * @throws UsageError where filters, the window or the connectivity are out of range
 */
export function sparseConv2d(options: SparseConv2dOptions) {
  const { name, filters } = options
  checkInteger('sparseConv2d', 'filters', filters, 1)
  return describe({
    layer: 'sparseConv2d',
    name,
    filters,
    ...sparseOptions('sparseConv2d', options),
    ...windowOptions('sparseConv2d', options),
    ...kernelOptions(options),
  })
}

export const sparseConv2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof sparseConv2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const kernel = maskedKernel(layer, [...layer.kernelSize, x.shape[3]!, layer.filters], scope)
    const bias = layer.useBias
      ? scope.parameter('bias', [layer.filters], { initializer: layer.biasInitializer })
      : undefined
    return activate(conv(x, kernel, bias, layerWindow(layer, scope, x)), layer.activation)
  },
}

/** kernel * mask, of `shape`. */
function maskedKernel(
  layer: ReturnType<typeof sparseDense> | ReturnType<typeof sparseConv2d>,
  shape: Shape,
  scope: Scope,
) {
  const where = `${layer.layer} "${scope.path}"`
  const units = shape.at(-1)!
  const extents = { inputs: sizeOf(shape) / units, channels: shape.at(-2)!, units }
  const density = expectedDensity(where, layer.connectivity, extents)
  const dense = fansOf(shape)
  const kernel = scope.parameter('kernel', shape, {
    initializer: layer.kernelInitializer,
    fans: { fanIn: dense.fanIn * density, fanOut: dense.fanOut * density },
    regularizer: layer.kernelRegularizer,
  })
  const mask = scope.buffer('mask', shape, {
    initial: key => connectionMask(where, layer.connectivity, extents, key),
    ...(layer.redraw ? { redraw: layer.redraw } : {}),
  })
  return mul(kernel, mask)
}
