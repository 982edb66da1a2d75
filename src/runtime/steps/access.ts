/** Where a kernel reads and writes: places in a tensor's values as an affine function of its loops. */
import type { OnnxNode } from '../../onnx/model.ts'
import { type Shape, sizeOf } from '../../util/host-tensor.ts'

/** Values that one operation of a kernel takes. */
export const LANES = 4

/**
 * In a tensor's values, row by row: the place of the first of four values is `offset` plus each loop's index times
 * its stride; the others follow at distances of `lanes`, which is 0 where all four are one value.
 */
export interface Access {
  readonly offset: number
  readonly strides: readonly number[]
  readonly lanes: number
}

/** No kernel can compute a value at a place where another needs it. */
export class Unfit extends Error {
  /** The node that gives it. */
  node: OnnxNode | undefined
}

/** Other loops in the place of some, and what each access becomes in them: one for each body that is written. */
export interface LoopChange {
  readonly loops: readonly number[]
  readonly accesses: (access: Access) => readonly Access[]
}

/** A kernel needs other loops than it has. */
export abstract class NeedsLoops extends Error {
  /** The one that is to change. */
  readonly loop: number

  constructor(loop: number, how: string) {
    super(`loop ${loop}: ${how}`)
    this.loop = loop
  }

  /**
   * One change for each kernel that there is to be.
   *
   * @throws Unfit where there would be no loop
   */
  abstract changes(loops: readonly number[]): LoopChange[]
}

/** The loop is to be two, of which the inner one has the extent `inner`. */
export class NeedsSplit extends NeedsLoops {
  readonly inner: number

  constructor(loop: number, inner: number) {
    super(loop, `split by ${inner}`)
    this.inner = inner
  }

  changes(loops: readonly number[]): LoopChange[] {
    const { loop, inner } = this
    const accesses = (access: Access) => {
      const stride = access.strides[loop]!
      return [{ ...access, strides: access.strides.toSpliced(loop, 1, stride * inner, stride) }]
    }
    return [{ loops: loops.toSpliced(loop, 1, loops[loop]! / inner, inner), accesses }]
  }
}

/** What a kernel does depends on this loop's index by more than places: its body is to be written for each. */
export class NeedsUnrolling extends NeedsLoops {
  constructor(loop: number) {
    super(loop, 'unrolling')
  }

  changes(loops: readonly number[]): LoopChange[] {
    const { loop } = this
    if (loops.length === 1) throw new Unfit('nothing but one turn')
    const turns = Array.from({ length: loops[loop]! }, (_, turn) => turn)
    const accesses = (access: Access) => turns.map(turn => withoutLoop(access, loop, turn))
    return [{ loops: loops.toSpliced(loop, 1), accesses }]
  }
}

/** What a kernel does depends on whether this loop's index has reached one of `bounds`: a kernel for each part. */
export class NeedsParts extends NeedsLoops {
  /** Where parts begin, but for the first. */
  readonly bounds: readonly number[]

  constructor(loop: number, bounds: readonly number[]) {
    super(loop, `parts at ${bounds.join()}`)
    this.bounds = bounds
  }

  changes(loops: readonly number[]): LoopChange[] {
    const { loop, bounds } = this
    const ends = [...bounds, loops[loop]!]
    return [0, ...bounds].map((from, i): LoopChange => {
      const turns = ends[i]! - from
      if (turns === 1 && loops.length > 1)
        return {
          loops: loops.toSpliced(loop, 1),
          accesses: access => [withoutLoop(access, loop, from)],
        }
      return {
        loops: loops.with(loop, turns),
        accesses: access => [moved(access, from * access.strides[loop]!)],
      }
    })
  }
}

/** The access in one turn of a loop. */
const withoutLoop = (access: Access, loop: number, turn: number): Access => ({
  ...moved(access, turn * access.strides[loop]!),
  strides: access.strides.toSpliced(loop, 1),
})

/**
 * The index along each axis of a tensor, each an affine function of the loops as the access is.
 *
 * @throws NeedsSplit where a loop runs over the end of an axis
 * @throws Unfit where four values do, or a loop's stride and an axis have no common measure
 */
export function indicesOf(access: Access, shape: Shape, loops: readonly number[]): Access[] {
  let rest = access
  return shape.map((_, axis) => {
    const unit = sizeOf(shape.slice(axis + 1))
    const whole = (value: number) => Math.floor(value / unit)
    const index = mapped(rest, whole)
    rest = mapped(rest, value => value % unit)
    const reach = extentOf(rest, loops)
    if (reach > unit) {
      const loop = rest.strides.findIndex(
        (stride, i) => stride > 0 && unit % stride === 0 && stride * loops[i]! > unit,
      )
      const inner = loop < 0 ? 0 : unit / rest.strides[loop]!
      if (loop < 0 || loops[loop]! % inner !== 0) throw new Unfit(`no loop for an axis of ${unit} values`)
      throw new NeedsSplit(loop, inner)
    }
    return index
  })
}

/** The access that has these indices along the axes of `shape`. */
export function accessOf(indices: readonly Access[], shape: Shape, loops: readonly number[]): Access {
  const units = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)))
  const sum = (part: (index: Access) => number) =>
    indices.reduce((total, index, axis) => total + part(index) * units[axis]!, 0)
  return {
    offset: sum(({ offset }) => offset),
    strides: loops.map((_, loop) => sum(({ strides }) => strides[loop]!)),
    lanes: sum(({ lanes }) => lanes),
  }
}

/** How many values lie between the first and the last that are accessed, with both. */
export const extentOf = ({ offset, strides, lanes }: Access, loops: readonly number[]): number =>
  strides.reduce((sum, stride, i) => sum + stride * (loops[i]! - 1), offset + lanes * (LANES - 1)) + 1

export const moved = (access: Access, by: number): Access => ({ ...access, offset: access.offset + by })

/** The loop that an access varies with; undefined where it is always the same place. */
export const varyingLoop = ({ strides }: Access): number | undefined => {
  const loop = strides.findIndex(stride => stride !== 0)
  return loop < 0 ? undefined : loop
}

const mapped = ({ offset, strides, lanes }: Access, change: (value: number) => number): Access => ({
  offset: change(offset),
  strides: strides.map(change),
  lanes: change(lanes),
})
