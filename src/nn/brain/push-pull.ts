/** Push-pull inhibition: a unit is inhibited by the negative of what it responds to, at a coarser scale. */
import type { Tensor } from '../../graph/node.ts'
import { conv } from '../../graph/ops/conv.ts'
import { mul, neg, relu, sub } from '../../graph/ops/elementwise.ts'
import { alongAxes } from '../../graph/ops/separable.ts'
import { constant } from '../../graph/ops/source.ts'
import type { Pair } from '../../graph/ops/window.ts'
import { checkInteger, checkRange, UsageError } from '../../util/errors.ts'
import { hostTensor } from '../../util/host-tensor.ts'
import { describe, featureMaps, type LayerDefinition } from '../layer.ts'
import { type Conv2dOptions, layerWindow, windowOptions } from '../layers/convolution.ts'
import { kernelOptions } from '../layers/core.ts'
import { checkFlag } from '../options.ts'

export interface PushPullConv2dOptions extends Omit<Conv2dOptions, 'groups' | 'activation'> {
  /** Size of the pull kernel over that of the push kernel, at least 1. Default: 2. */
  readonly scale?: number
  /** alpha, the strength of the inhibition. Default: 1. */
  readonly strength?: number
  /** Learn one strength for each filter, from `strength` on. Default: false. */
  readonly learned?: boolean
}

/**
 * y = relu(w * x + b) - alpha_k relu(-(w_up * x + b)), w_up the kernel w enlarged by linear interpolation
 * (corners on corners) to floor(scale size), made odd by one more; both windows are centred on the same cell,
 * and zeros lie outside the map. [N, H, W, C] to [N, H', W', filters]; kernel [kH, kW, C, filters] of odd
 * sizes, bias [filters]. Windows, initializers and their defaults are those of `conv2d`. Parameter strength
 * [filters] where it is learned, of which the positive part acts, as relu(alpha).
 *
 * Strisciuglio, Lopez-Antequera and Petkov 2020, arXiv 1901.10208; defaults and interpolation as in
 * published code for that paper.
 *
 * @throws UsageError where an option is out of range
 */
export function pushPullConv2d(options: PushPullConv2dOptions) {
  const { name, filters, scale = 2, strength = 1, learned = false } = options
  const where = 'pushPullConv2d'
  checkInteger(where, 'filters', filters, 1)
  checkRange(where, 'scale', scale, 1)
  checkRange(where, 'strength', strength, 0)
  checkFlag(where, 'learned', learned)
  const window = windowOptions(where, options)
  if (window.kernelSize.some(size => size % 2 === 0))
    throw new UsageError(
      `${where}: kernelSize must be odd, so that it has a centre, received ${window.kernelSize}`,
    )
  const { activation: _, ...kernel } = kernelOptions(options)
  return describe({ layer: where, name, filters, scale, strength, learned, ...window, ...kernel })
}

export const pushPullConv2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof pushPullConv2d>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const { filters, kernelSize } = layer
    const kernel = scope.parameter('kernel', [...kernelSize, x.shape[3]!, filters], {
      initializer: layer.kernelInitializer,
      regularizer: layer.kernelRegularizer,
    })
    const bias = layer.useBias
      ? scope.parameter('bias', [filters], { initializer: layer.biasInitializer })
      : undefined
    const window = layerWindow(layer, scope, x)
    const large = kernelSize.map(size => enlarged(size, layer.scale)) as unknown as Pair
    const more = [0, 1].map(axis => ((large[axis]! - kernelSize[axis]!) / 2) * window.dilation[axis]!)
    const around = (cells: Pair): Pair => [cells[0] + more[0]!, cells[1] + more[1]!]
    const pullWindow = {
      ...window,
      kernel: large,
      before: around(window.before),
      after: around(window.after),
    }

    const push = relu(conv(x, kernel, bias, window))
    const pull = relu(neg(conv(x, interpolated(kernel, large), bias, pullWindow)))
    if (!layer.learned) return sub(push, mul(pull, layer.strength))
    const strength = scope.parameter('strength', [filters], {
      initializer: { initializer: 'constant', value: layer.strength },
    })
    return sub(push, mul(pull, relu(strength)))
  },
}

function enlarged(size: number, scale: number): number {
  if (scale === 1) return size
  const larger = Math.floor(size * scale)
  return larger % 2 === 0 ? larger + 1 : larger
}

/** A kernel [kH, kW, C, K] interpolated to `size`, linearly along each axis. */
function interpolated(kernel: Tensor, size: Pair): Tensor {
  const [down, across] = size.map((to, axis) => interpolation(kernel.shape[axis]!, to, kernel))
  return alongAxes(kernel, down!, across!)
}

/** The matrix [to, from] of linear interpolation that maps first to first and last to last. */
function interpolation(from: number, to: number, like: Tensor): Tensor {
  const values = Array.from({ length: to * from }, (_, at) => {
    const position = to === 1 ? 0 : (Math.floor(at / from) * (from - 1)) / (to - 1)
    return Math.max(0, 1 - Math.abs(position - (at % from)))
  })
  return constant(hostTensor(like.dtype, [to, from], values))
}
