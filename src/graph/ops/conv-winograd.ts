/**
 * Convolution with strides of 1 by minimal filtering (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308):
 * along each axis the outputs are made in tiles of m from t = m + k - 1 inputs, with t products in the place
 * of m k,
 *
 *   y = A ((G w) (B x)),   B [T t, extent], G [t, k], A [extent', T t],
 *
 * where T is the number of tiles, and the padding is part of B. The transforms of the two axes are applied
 * one after the other (separable.ts). Between them, channels meet in a matrix product for each of the t t
 * places of a tile. Along the width, rows of B are ordered (place, tile), so that the tiles of a place are rows of one
 * product; along the height (tile, place), so that what comes of a row of tiles lies together: threads share transforms
 * and products by rows of tiles, and each finds in its own cache what it wrote.
 */
import { hostTensor } from '../../util/host-tensor.ts'
import type { Tensor } from '../node.ts'
import { matMul, reduceSum } from './reduce.ts'
import { alongAxes, alongAxesWork } from './separable.ts'
import { reshape } from './shape.ts'
import { constant } from './source.ts'
import { type ConvWork, type Extents, type Pair, type WindowAttributes, windowCounts } from './window.ts'

type Matrix = readonly (readonly number[])[]

/** The transforms of one axis. */
interface Axis {
  readonly tiles: number
  /** t, the products of a tile. */
  readonly places: number
  /** B [places tiles, extent]. */
  readonly input: Matrix
  /** G [places, k]. */
  readonly kernel: Matrix
  /** A [extent', places tiles]. */
  readonly output: Matrix
}

/**
 * Where polynomials are evaluated, besides infinity. Of all choices of small numbers these lose the fewest
 * digits for 4 and for 6 products (Barabasz, Anderson, Soodhalter and Gregg 2018, arXiv 1803.10986).
 */
const POINTS = [0, -1, 1, 0.5, -2]

/** The most products of a tile along an axis: with more, float32 loses too many digits. */
const MOST_PLACES = POINTS.length + 1

/** The work of a convolution of maps [H, W, N, C] to K channels, by tiles of `m` outputs. */
export function winogradWork([h, w, n, c]: Extents, k: number, window: WindowAttributes, m: Pair): ConvWork {
  const outputs = windowCounts([h, w], window)
  const places = [m[0] + window.kernel[0] - 1, m[1] + window.kernel[1] - 1] as const
  const tiles = [Math.ceil(outputs[0] / m[0]), Math.ceil(outputs[1] / m[1])] as const
  const products = [tiles[0] * places[0], tiles[1] * places[1]] as const
  const area = products[0] * products[1]
  const input = alongAxesWork([h, w], products)
  const output = alongAxesWork(products, outputs)
  // Of the three passes one writes the kernel's transform, and one its gradient for each row of tiles.
  const kernels = (places[0] * places[1] * (1 + tiles[0])) / 3
  return {
    whole: n * (c * input.multiplications + k * output.multiplications),
    batched: area * n * c * k,
    values: n * (c * (input.between + area) + k * (area + output.between)) + kernels * c * k,
  }
}

/** The tiles that a window can be computed by. */
export function winogradTiles({ kernel, strides, dilation }: WindowAttributes): Pair[] {
  if ([...strides, ...dilation].some(step => step !== 1) || Math.min(...kernel) === 1) return []
  const extents = (k: number) => [2, 3, 4].filter(m => m + k - 1 <= MOST_PLACES)
  return extents(kernel[0]).flatMap(a => extents(kernel[1]).map((b): Pair => [a, b]))
}

const product = (values: readonly number[]) => values.reduce((a, b) => a * b, 1)

/** Rows [1, p, p^2, ...] of `columns` powers; at infinity only the highest. */
function powers(points: readonly number[], columns: number): Matrix {
  const range = Array.from({ length: columns }, (_, i) => i)
  return [...points.map(p => range.map(i => p ** i)), range.map(i => (i === columns - 1 ? 1 : 0))]
}

/** Coefficients of the product of (x - p), from the lowest power. */
function polynomial(roots: readonly number[]): number[] {
  let coefficients = [1]
  for (const p of roots)
    coefficients = coefficients
      .concat(0)
      .map((_, i) => (coefficients[i - 1] ?? 0) - p * (coefficients[i] ?? 0))
  return coefficients
}

/** What a tile of `m` outputs is made with: A' [m, t], G [t, k] and B' [t, t]: Toom-Cook, transposed. */
function tileTransforms(m: number, k: number): { output: Matrix; kernel: Matrix; input: Matrix } {
  const t = m + k - 1
  const points = POINTS.slice(0, t - 1)
  const others = (i: number) => points.filter((_, j) => j !== i)
  // Lagrange's polynomials of the points; their denominators go to the kernel, which is transformed once.
  const scales = points.map((p, i) => product(others(i).map(q => p - q)))
  const input = [...points.map((_, i) => [...polynomial(others(i)), 0]), polynomial(points)]
  const kernel = powers(points, k).map((row, i) => row.map(value => value / (scales[i] ?? 1)))
  return { output: transposed(powers(points, m)), kernel, input }
}

const transposed = (rows: Matrix): Matrix => rows[0]!.map((_, j) => rows.map(row => row[j]!))

function axisOf(extent: number, axis: 0 | 1, window: WindowAttributes, m: number): Axis {
  const k = window.kernel[axis]
  const outputs = windowCounts([extent, extent], window)[axis]
  const tiles = Math.ceil(outputs / m)
  const places = m + k - 1
  const tile = tileTransforms(m, k)
  const zeros = (rows: number, columns: number) =>
    Array.from({ length: rows }, () => new Array<number>(columns).fill(0))
  const input = zeros(places * tiles, extent)
  const output = zeros(outputs, places * tiles)
  for (let u = 0; u < places; u++)
    for (let at = 0; at < tiles; at++) {
      const row = axis === 0 ? at * places + u : u * tiles + at
      for (let j = 0; j < places; j++) {
        const position = at * m + j - window.before[axis]
        if (position >= 0 && position < extent) input[row]![position] = tile.input[u]![j]!
      }
      for (let i = 0; i < m && at * m + i < outputs; i++) output[at * m + i]![row] = tile.output[i]![u]!
    }
  return { tiles, places, input, kernel: tile.kernel, output }
}

type Axes = readonly [Axis, Axis]

const axesOf = (size: Pair, window: WindowAttributes, m: Pair): Axes => [
  axisOf(size[0], 0, window, m[0]),
  axisOf(size[1], 1, window, m[1]),
]

function transform(maps: Tensor, down: Matrix, across: Matrix): Tensor {
  const [h, w] = [down, across].map(rows =>
    constant(hostTensor(maps.dtype, [rows.length, rows[0]!.length], rows.flat())),
  )
  return alongAxes(maps, h!, w!)
}

/** [T, t, t, T N, C]: maps [H, W, N, C], or their cotangent, as products see them. */
function inward(maps: Tensor, [h, w]: Axes, matrixOfAxis: (axis: Axis) => Matrix): Tensor {
  const [, , n, c] = maps.shape as [number, number, number, number]
  const rows = transform(maps, matrixOfAxis(h), matrixOfAxis(w))
  return reshape(rows, [h.tiles, h.places, w.places, w.tiles * n, c])
}

/** Maps [H, W, N, C] of products [T, t, t, T N, C]. */
function outward(products: Tensor, [h, w]: Axes, n: number, matrixOfAxis: (axis: Axis) => Matrix): Tensor {
  const c = products.shape.at(-1)!
  const stacked = reshape(products, [h.tiles * h.places, w.places * w.tiles, n, c])
  return transform(stacked, matrixOfAxis(h), matrixOfAxis(w))
}

const inputOf = (axis: Axis) => axis.input
const outputOf = (axis: Axis) => axis.output
const inputBack = (axis: Axis) => transposed(axis.input)
const outputBack = (axis: Axis) => transposed(axis.output)

/** [t, t, C, K]: the transformed kernel w [kH, kW, C, K]. */
function transformedKernel(kernel: Tensor, [h, w]: Axes): Tensor {
  const [, , c, k] = kernel.shape as [number, number, number, number]
  const rows = transform(kernel, h.kernel, w.kernel)
  return reshape(rows, [h.places, w.places, c, k])
}

/** Y [H', W', N, K]; tiles of m outputs along each axis. */
export function winogradConvolution(x: Tensor, w: Tensor, window: WindowAttributes, m: Pair): Tensor {
  const axes = axesOf(sizeOfMaps(x), window, m)
  const products = matMul(inward(x, axes, inputOf), transformedKernel(w, axes))
  return outward(products, axes, x.shape[2]!, outputOf)
}

/** dX [H, W, N, C]. */
export function winogradInputGradient(
  dy: Tensor,
  w: Tensor,
  size: Pair,
  window: WindowAttributes,
  m: Pair,
): Tensor {
  const axes = axesOf(size, window, m)
  const products = matMul(inward(dy, axes, outputBack), transformedKernel(w, axes), { transB: true })
  return outward(products, axes, dy.shape[2]!, inputBack)
}

/** dW [kH, kW, C, K]. */
export function winogradKernelGradient(x: Tensor, dy: Tensor, window: WindowAttributes, m: Pair): Tensor {
  const axes = axesOf(sizeOfMaps(x), window, m)
  const [h, w] = axes
  const [c, k] = [x.shape[3]!, dy.shape[3]!]
  const products = matMul(inward(x, axes, inputOf), inward(dy, axes, outputBack), { transA: true })
  const places = reshape(reduceSum(products, [0]), [h.places, w.places, c, k])
  return transform(places, transposed(h.kernel), transposed(w.kernel))
}

const sizeOfMaps = ({ shape }: Tensor): Pair => [shape[0]!, shape[1]!]
