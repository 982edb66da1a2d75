/** The reference of the ops that augmentations need: random numbers, and reading between pixels. */
import { type Shape, sizeOf } from '../src/util/host-tensor.ts'
import type { Values } from './reference.ts'

/**
 * `of` 32 random bits for each element: MurmurHash3's finalizer of its number from 1 on, then two rounds with
 * the key.
 */
export function drawn(key: Values, shape: Shape, of: (bits: number) => number): Values {
  const data = Float64Array.from({ length: sizeOf(shape) }, (_, i) => {
    let mixed = i + 1
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
    let z = Math.imul(mixed ^ (mixed >>> 16) ^ key.data[0]!, 0x9e3779b1)
    z = Math.imul(z ^ (z >>> 15), 0x85ebca6b)
    return of(z >>> 0)
  })
  return { shape, data }
}

/**
 * Images [N, C, H, W] at the places of a grid [N, H', W', 2], each the sum of all pixels by their bilinear
 * weights.
 */
export function sampled(x: Values, grid: Values): Values {
  const [images, channels, height, width] = x.shape as readonly [number, number, number, number]
  const places = sizeOf(grid.shape.slice(1, 3))
  const weight = (distance: number) => Math.max(0, 1 - Math.abs(distance))
  const data = Float64Array.from({ length: images * channels * places }, (_, i) => {
    const [plane, place] = [Math.floor(i / places), i % places]
    const at = (Math.floor(plane / channels) * places + place) * 2
    // -1 is the edge of the first pixel, half a pixel before its centre.
    const column = ((grid.data[at]! + 1) * width - 1) / 2
    const line = ((grid.data[at + 1]! + 1) * height - 1) / 2
    let total = 0
    for (let p = 0; p < height * width; p++)
      total +=
        weight(Math.floor(p / width) - line) *
        weight((p % width) - column) *
        x.data[plane * height * width + p]!
    return total
  })
  return { shape: [images, channels, ...grid.shape.slice(1, 3)], data }
}
