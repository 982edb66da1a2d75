/**
 * Changes of an image that only move or hide pixels. Each is a rule for the place that a pixel comes from, so
 * that any number of them are one gather of pixels: index arithmetic on lines and columns, none on the
 * images.
 */
import type { Tensor } from '../../graph/node.ts'
import { add, cast, clip, less, max, mul, sub } from '../../graph/ops/elementwise.ts'
import { gather } from '../../graph/ops/gather.ts'
import { concat, reshape } from '../../graph/ops/shape.ts'
import { constant } from '../../graph/ops/source.ts'
import { UsageError } from '../../util/errors.ts'
import { hostTensor } from '../../util/host-tensor.ts'
import type { Augmentation } from './descriptions.ts'

/**
 * Further from 0 than any index: added to an index, once for each axis, it marks a pixel that lies beyond the
 * border.
 */
const FAR = 2 ** 28
/**
 * Added to an index they mark a hidden pixel: one wins over the border, the other loses to it. Sums stay
 * within int32.
 */
const HIDDEN_IN_FRONT = -4 * FAR
const HIDDEN_BEHIND = -FAR / 2

/**
 * Where the pixels of the changed images come from, along one axis: int32, [H, 1, N] or [1, W, N], or with 1
 * for N.
 */
interface Axis {
  readonly extent: number
  /** Within 0 .. extent - 1. */
  readonly place: Tensor
  /** FAR where the pixel lies beyond the border, else 0. */
  readonly beyond?: Tensor
  /** HIDDEN_IN_FRONT or HIDDEN_BEHIND within the lines (columns) of the hidden square, else 0. */
  readonly hidden?: Tensor
}

type Moving = Extract<Augmentation, { augmentation: 'crop' | 'flip' | 'cutout' }>

export interface Move {
  readonly description: Moving
  /** Uniform in [0, 1), float32 [N] each. */
  readonly draws: readonly Tensor[]
}

export const isMoving = (one: Augmentation): one is Moving =>
  one.augmentation === 'crop' || one.augmentation === 'flip' || one.augmentation === 'cutout'

/** Images as rows of pixels [P, C], and how far apart in P neighbours are. */
export interface Pixels {
  readonly rows: Tensor
  readonly strides: { readonly image: number; readonly line: number; readonly column: number }
}

/**
 * The images [H, W, N, C], in the dtype of the pixels, after all `moves`, of which the first is done first.
 */
export function moved(
  { rows, strides }: Pixels,
  [height, width, count]: readonly [number, number, number],
  moves: readonly Move[],
): Tensor {
  const [pixels, channels] = rows.shape as readonly [number, number]
  if (pixels >= FAR / 2)
    throw new UsageError(`augmentation: expected a minibatch below ${FAR / 2} pixels, received ${pixels}`)
  let y: Axis = { extent: height, place: integers([height, 1, 1], i => i) }
  let x: Axis = { extent: width, place: integers([1, width, 1], i => i) }
  // A pixel's place is followed back from the last change to the first.
  for (const { description, draws } of moves.toReversed()) {
    const [first, second] = draws.map(draw => reshape(draw, [1, 1, count]))
    if (description.augmentation === 'crop') {
      y = cropped(y, description, first!)
      x = cropped(x, description, second!)
    } else if (description.augmentation === 'cutout') {
      y = hidden(y, description.size, first!)
      x = hidden(x, description.size, second!)
    } else x = flipped(x, description.probability, first!)
  }
  const images = integers([1, 1, count], i => i * strides.image)
  const index = add(
    add(placeIndex(y, strides.line), images),
    // One sum over all pixels; the others are over lines and columns.
    placeIndex(x, strides.column),
  )
  const fill = moves.flatMap(({ description }) =>
    description.augmentation === 'cutout' ? [description.fill] : [],
  )
  if (fill[0] === 'mean')
    throw new UsageError(
      'cutout: expected a fill of numbers, received "mean", which trainingSpec() replaces by those of the data set',
    )
  const extra = [...(fill[0] ?? zeros(channels)), ...zeros(channels)]
  const table = concat([rows, constant(hostTensor(rows.dtype, [2, channels], extra))], 0)
  const marked = y.hidden && x.hidden ? add(index, max(y.hidden, x.hidden)) : index
  // Hidden pixels are far below 0, and -2 is the last row but one; those beyond the border are far above all.
  const found = y.beyond || y.hidden ? clip(marked, -2, pixels + 1) : index
  return gather(found === index ? rows : table, found)
}

/** u in [0, 1) to 0 .. count - 1, each as likely. */
const choice = (u: Tensor, count: number) => cast(mul(u, count), 'int32')

const zeros = (count: number) => new Array<number>(count).fill(0)

function integers(shape: readonly number[], value: (i: number) => number): Tensor {
  const length = shape.reduce((a, b) => a * b, 1)
  return constant(
    hostTensor(
      'int32',
      shape,
      Array.from({ length }, (_, i) => value(i)),
    ),
  )
}

function placeIndex({ place, beyond }: Axis, stride: number): Tensor {
  const index = mul(place, stride)
  return beyond ? add(index, beyond) : index
}

function cropped(axis: Axis, { padding, mode }: { padding: number; mode: string }, u: Tensor): Axis {
  const { extent } = axis
  const padded = add(axis.place, choice(u, 2 * padding + 1))
  const last = extent - 1
  const inside = (i: number) => Math.min(Math.max(i, 0), last)
  const mirrored = (i: number) => last - Math.abs(last - Math.abs(i))
  const place = mode === 'reflect' ? mirrored : inside
  const table = (value: (i: number) => number) =>
    gather(
      integers([extent + 2 * padding], i => value(i - padding)),
      padded,
    )
  const moved = { ...axis, place: table(place) }
  return mode === 'reflect' ? moved : { ...moved, beyond: table(i => (i === inside(i) ? 0 : FAR)) }
}

function flipped(axis: Axis, probability: number, u: Tensor): Axis {
  // x + flip (W - 1 - 2 x)
  const flip = cast(less(u, constant(hostTensor('float32', [], [probability]))), 'int32')
  const across = sub(axis.extent - 1, mul(axis.place, 2))
  return { ...axis, place: add(axis.place, mul(flip, across)) }
}

/** From floor(size / 2) pixels before the centre on, as the authors' code for even sizes. */
function hidden(axis: Axis, size: number, u: Tensor): Axis {
  const { extent } = axis
  const half = Math.floor(size / 2)
  const covers = (distance: number) => -half <= distance && distance < size - half
  // A border that is there already, on the way back, is that of a later crop.
  const mark = axis.beyond ? HIDDEN_BEHIND : HIDDEN_IN_FRONT
  const table = integers([2 * extent - 1], i => (covers(i - (extent - 1)) ? mark : 0))
  const distance = sub(axis.place, choice(u, extent))
  return { ...axis, hidden: gather(table, add(distance, extent - 1)) }
}
