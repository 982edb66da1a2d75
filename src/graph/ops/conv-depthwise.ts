/**
 * Depthwise convolution: each channel by kernels of its own. x [H, W, N, C], w [kH, kW, 1, C m], result
 * [H', W', N, C m]. Sums of products, because a matrix product has nothing to sum over but the taps.
 */
import type { Tensor } from '../node.ts'
import { add, mul } from './elementwise.ts'
import { concat, pad, reshape, slice, split } from './shape.ts'
import { filled } from './source.ts'
import { cell, type Extents, type WindowAttributes, windowCounts } from './window.ts'

/**
 * Up to so many products, outputs of a map times taps, each output is summed by itself: nothing is multiplied by
 * padding or shifted. Of more, one operation for each tap is faster.
 */
const FEW_PRODUCTS = 81

export function depthwise(x: Tensor, w: Tensor, window: WindowAttributes): Tensor {
  const [h, width, n, c] = x.shape as unknown as Extents
  const [kh, kw, , k] = w.shape as unknown as Extents
  const [rows, columns] = windowCounts([h, width], window)
  const multiplier = k / c
  const taps = rowsOf(reshape(w, multiplier === 1 ? [kh * kw, c] : [kh * kw, c, multiplier]))
  const weighted = (maps: Tensor, tap: number) => mul(maps, reshape(taps[tap]!, taps[tap]!.shape.slice(1)))
  const maps = reshape(x, multiplier === 1 ? [h, width, n, c] : [h, width, n, c, 1])
  const sum =
    rows * columns * kh * kw <= FEW_PRODUCTS
      ? sumsByOutput(maps, weighted, [rows, columns, n, k], window)
      : sumByTap(maps, weighted, [rows, columns], window)
  return reshape(sum, [rows, columns, n, k])
}

/** The parts along the first axis, whose extent is 1 in each. */
const rowsOf = (x: Tensor) => split(x, 0, new Array<number>(x.shape[0]!).fill(1))

type Weighted = (maps: Tensor, tap: number) => Tensor

/** A sum over taps of shifted maps. */
function sumByTap(
  x: Tensor,
  weighted: Weighted,
  [rows, columns]: readonly [number, number],
  { kernel, strides, dilation, before, after }: WindowAttributes,
): Tensor {
  const others = x.shape.slice(2).map(() => 0)
  const padded = pad(x, [...before, ...others], [...after, ...others])
  const bands = Array.from({ length: kernel[0] }, (_, i) =>
    slice(padded, 0, i * dilation[0], rows, strides[0]),
  )
  const terms = bands.flatMap((band, i) =>
    Array.from({ length: kernel[1] }, (_, j) =>
      weighted(slice(band, 1, j * dilation[1], columns, strides[1]), i * kernel[1] + j),
    ),
  )
  return terms.reduce(add)
}

/** For each output, a sum over the taps that read a cell of the map. */
function sumsByOutput(x: Tensor, weighted: Weighted, result: Extents, window: WindowAttributes): Tensor {
  const [h, width, ...others] = x.shape
  const cells = rowsOf(reshape(x, [h! * width!, ...others]))
  const [rows, columns, n, k] = result
  const sums: Tensor[] = []
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const terms: Tensor[] = []
      for (let i = 0; i < window.kernel[0]; i++)
        for (let j = 0; j < window.kernel[1]; j++) {
          const [ih, iw] = [cell(window, 0, row, i), cell(window, 1, column, j)]
          if (ih >= 0 && ih < h! && iw >= 0 && iw < width!)
            terms.push(weighted(cells[ih * width! + iw]!, i * window.kernel[1] + j))
        }
      sums.push(terms.length === 0 ? filled([1, n, k], 0, x.dtype) : reshape(terms.reduce(add), [1, n, k]))
    }
  return concat(sums, 0)
}
