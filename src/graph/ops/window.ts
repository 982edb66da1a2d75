/** Where the windows of convolution and pooling lie. Spatial axes are [height, width]. */
import { UsageError } from '../../util/errors.ts'

export type Pair = readonly [number, number]

/** Of feature maps: [H, W, N, C]. */
export type Extents = readonly [number, number, number, number]

/** What a form of a convolution costs, on average over the forward pass and the two gradients. */
export interface ConvWork {
  /** Multiplications in matrix products over all images. */
  readonly whole: number
  /** Multiplications in many small matrix products. */
  readonly batched: number
  /** Values that are written, to be read again. */
  readonly values: number
}

/** Families of forms of a convolution. */
export const convMethods = ['gather', 'dft', 'winograd'] as const

/**
 * `gather`: every input that an output reads is multiplied, as in the definition. `dft`, `winograd`: in a
 * transformed domain.
 */
export type ConvMethod = (typeof convMethods)[number]

/** The geometry of a sliding window over [height, width]. */
export interface WindowAttributes {
  readonly kernel: Pair
  readonly strides: Pair
  readonly dilation: Pair
  /** Cells of padding: [top, left] and [bottom, right]. */
  readonly before: Pair
  readonly after: Pair
  /** How a convolution by this window is computed where it can be. Default: as is fastest. */
  readonly method?: ConvMethod
}

/**
 * Window geometry by Keras's rule. `valid`: no padding. `same`: ceil(extent / stride) outputs, the odd cell
 * of padding after.
 */
export function windowOf(
  where: string,
  size: Pair,
  kernel: Pair,
  strides: Pair,
  padding: 'valid' | 'same',
  dilation: Pair = [1, 1],
): WindowAttributes {
  const reach = both(axis => (kernel[axis]! - 1) * dilation[axis]! + 1)
  const total = both(axis => {
    if (padding === 'valid') return 0
    const count = Math.ceil(size[axis]! / strides[axis]!)
    return Math.max((count - 1) * strides[axis]! + reach[axis]! - size[axis]!, 0)
  })
  const before = both(axis => Math.floor(total[axis]! / 2))
  const after = both(axis => total[axis]! - before[axis]!)
  for (const axis of [0, 1] as const)
    if (size[axis] + total[axis]! < reach[axis]!)
      throw new UsageError(
        `${where}: a window of ${reach.join(' x ')} does not fit in ${size.join(' x ')} (padding "${padding}")`,
      )
  return { kernel, strides, dilation, before, after }
}

/** The number of windows along each axis. */
export function windowCounts(size: Pair, window: WindowAttributes): Pair {
  return both(axis => {
    const reach = spanOf(window, axis) + 1
    const padded = size[axis] + window.before[axis] + window.after[axis]
    return Math.floor((padded - reach) / window.strides[axis]) + 1
  })
}

/** Cells from a window's first tap to its last. */
export function spanOf({ kernel, dilation }: WindowAttributes, axis: 0 | 1): number {
  return (kernel[axis] - 1) * dilation[axis]
}

/** For each axis, the cell that tap `t` of window `o` reads; it may lie in the padding, out of range. */
export function cell(window: WindowAttributes, axis: 0 | 1, o: number, t: number): number {
  return o * window.strides[axis] + t * window.dilation[axis] - window.before[axis]
}

export function hasPadding({ before, after }: WindowAttributes): boolean {
  return [...before, ...after].some(n => n > 0)
}

function both(value: (axis: 0 | 1) => number): Pair {
  return [value(0), value(1)]
}
