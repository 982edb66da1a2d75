/**
 * Convolution with strides of 1 by the discrete Fourier transform of small maps, as a bilinear algorithm:
 * with constant matrices B [R, H W], G [R, kH kW] and A [H' W', R],
 *
 *   X~ = B X [R, N, C],  W~ = G W [R, C, K],  Y = A (X~ W~),
 *
 * where X~ W~ is a matrix product for each of the R rows. The transform is cyclic over the least extents for
 * which taps outside of the map land on zeros. A frequency that is its own conjugate has one real row; of a
 * conjugate pair one is kept, and its complex product takes three rows,
 * (a + ib)(c + id) = k1 - k3 + i (k1 + k2) with k1 = (a + b) c, k2 = a (d - c), k3 = b (c + d) (Gauss).
 */
import { hostTensor } from '../../util/host-tensor.ts'
import type { Tensor } from '../node.ts'
import { matMul } from './reduce.ts'
import { reshape } from './shape.ts'
import { constant } from './source.ts'
import { type ConvWork, type Extents, type Pair, type WindowAttributes, windowCounts } from './window.ts'

/** The three matrices, row by row. */
interface Transforms {
  readonly rows: number
  /** B [R, H W]. */
  readonly input: readonly number[]
  /** G [R, kH kW]. */
  readonly kernel: readonly number[]
  /** A [H' W', R]. */
  readonly output: readonly number[]
}

/** The extent of the cyclic transform along an axis: the map's, and zeros for the taps that leave it. */
const cycle = (extent: number, window: WindowAttributes, axis: 0 | 1) =>
  extent + Math.max(window.before[axis], window.after[axis])

/** R, the number of rows of the transforms. */
function dftRows(size: Pair, window: WindowAttributes): number {
  const [height, width] = [cycle(size[0], window, 0), cycle(size[1], window, 1)]
  // Frequencies that are their own conjugates have each index 0 or half of an even extent.
  const own = (height % 2 === 0 ? 2 : 1) * (width % 2 === 0 ? 2 : 1)
  return own + (3 * (height * width - own)) / 2
}

/** The work of a convolution of maps [H, W, N, C] to K channels. */
export function dftWork([h, w, n, c]: Extents, k: number, window: WindowAttributes): ConvWork {
  const r = dftRows([h, w], window)
  const [rows, columns] = windowCounts([h, w], window)
  const taps = window.kernel[0] * window.kernel[1]
  return {
    whole: r * (h * w * n * c + taps * c * k + rows * columns * n * k),
    batched: r * n * c * k,
    values: r * (n * c + c * k + n * k),
  }
}

const known = new Map<string, Transforms>()

function transformsOf(size: Pair, window: WindowAttributes): Transforms {
  const { kernel, before, after } = window
  const name = JSON.stringify([size, kernel, before, after])
  const transforms = known.get(name) ?? makeTransforms(size, window)
  known.set(name, transforms)
  return transforms
}

function makeTransforms(size: Pair, window: WindowAttributes): Transforms {
  const [height, width] = [cycle(size[0], window, 0), cycle(size[1], window, 1)]
  const outputSize = windowCounts(size, window)
  const input: number[] = []
  const kernel: number[] = []
  const columns: number[][] = []
  for (let u = 0; u < height; u++)
    for (let v = 0; v < width; v++) {
      const [conjugateU, conjugateV] = [(height - u) % height, (width - v) % width]
      if (conjugateU < u || (conjugateU === u && conjugateV < v)) continue
      const own = conjugateU === u && conjugateV === v
      // Turns are reduced to less than one before they become angles: large products lose no digits.
      const angle = (i: number, j: number) =>
        2 * Math.PI * (((u * i) % height) / height + ((v * j) % width) / width)
      const map = cells(size).map(([i, j]) => angle(i, j))
      const taps = cells(window.kernel).map(([i, j]) => angle(i - window.before[0], j - window.before[1]))
      const places = cells(outputSize).map(([i, j]) => angle(i, j))
      const scale = 1 / (height * width)
      if (own) {
        input.push(...map.map(Math.cos))
        kernel.push(...taps.map(Math.cos))
        columns.push(places.map(turn => scale * Math.cos(turn)))
        continue
      }
      // X = a + ib = sum x e^-i angle; the kernel's conjugate c + id = sum w e^+i angle;
      // y = 2 Re(X W e^+i angle).
      const [a, b] = [map.map(Math.cos), map.map(turn => -Math.sin(turn))]
      const [c, d] = [taps.map(Math.cos), taps.map(Math.sin)]
      input.push(...a.map((value, i) => value + b[i]!), ...a, ...b)
      kernel.push(...c, ...d.map((value, i) => value - c[i]!), ...c.map((value, i) => value + d[i]!))
      columns.push(
        places.map(turn => 2 * scale * (Math.cos(turn) - Math.sin(turn))),
        places.map(turn => -2 * scale * Math.sin(turn)),
        places.map(turn => -2 * scale * Math.cos(turn)),
      )
    }
  const output = cells(outputSize).flatMap((_, place) => columns.map(column => column[place]!))
  return { rows: columns.length, input, kernel, output }
}

/** All (i, j) of a grid, row by row. */
function cells([rows, columns]: Pair): [number, number][] {
  return Array.from({ length: rows * columns }, (_, at) => [Math.floor(at / columns), at % columns])
}

const matrix = (rows: number, values: readonly number[], like: Tensor) =>
  constant(hostTensor(like.dtype, [rows, values.length / rows], values))

/** X~ [R, N, C] of maps x [H, W, N, C]. */
function transformedInput(x: Tensor, { rows, input }: Transforms): Tensor {
  const [h, w, n, c] = x.shape as [number, number, number, number]
  return reshape(matMul(matrix(rows, input, x), reshape(x, [h * w, n * c])), [rows, n, c])
}

/** W~ [R, C, K] of a kernel w [kH, kW, C, K]. */
function transformedKernel(w: Tensor, { rows, kernel }: Transforms): Tensor {
  const [kh, kw, c, k] = w.shape as [number, number, number, number]
  return reshape(matMul(matrix(rows, kernel, w), reshape(w, [kh * kw, c * k])), [rows, c, k])
}

/** A' dY [R, N, K] of the cotangent dy [H', W', N, K]. */
function transformedCotangent(dy: Tensor, { rows, output }: Transforms): Tensor {
  const [h, w, n, k] = dy.shape as [number, number, number, number]
  const product = matMul(matrix(h * w, output, dy), reshape(dy, [h * w, n * k]), { transA: true })
  return reshape(product, [rows, n, k])
}

/** Y [H', W', N, K]. */
export function dftConvolution(x: Tensor, w: Tensor, window: WindowAttributes): Tensor {
  const size: Pair = [x.shape[0]!, x.shape[1]!]
  const transforms = transformsOf(size, window)
  const places = windowCounts(size, window)
  const [n, k] = [x.shape[2]!, w.shape[3]!]
  const product = matMul(transformedInput(x, transforms), transformedKernel(w, transforms))
  const rows = reshape(product, [transforms.rows, n * k])
  return reshape(matMul(matrix(places[0] * places[1], transforms.output, x), rows), [...places, n, k])
}

/** dX [H, W, N, C] = B' (A' dY W~'). */
export function dftInputGradient(dy: Tensor, w: Tensor, size: Pair, window: WindowAttributes): Tensor {
  const transforms = transformsOf(size, window)
  const [n, c] = [dy.shape[2]!, w.shape[2]!]
  const product = matMul(transformedCotangent(dy, transforms), transformedKernel(w, transforms), {
    transB: true,
  })
  const rows = reshape(product, [transforms.rows, n * c])
  return reshape(matMul(matrix(transforms.rows, transforms.input, dy), rows, { transA: true }), [
    ...size,
    n,
    c,
  ])
}

/** dW [kH, kW, C, K] = G' (X~' A' dY). */
export function dftKernelGradient(x: Tensor, dy: Tensor, window: WindowAttributes): Tensor {
  const transforms = transformsOf([x.shape[0]!, x.shape[1]!], window)
  const [c, k] = [x.shape[3]!, dy.shape[3]!]
  const product = matMul(transformedInput(x, transforms), transformedCotangent(dy, transforms), {
    transA: true,
  })
  const rows = reshape(product, [transforms.rows, c * k])
  return reshape(matMul(matrix(transforms.rows, transforms.kernel, x), rows, { transA: true }), [
    ...window.kernel,
    c,
    k,
  ])
}
