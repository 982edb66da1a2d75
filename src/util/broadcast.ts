import { UsageError } from './errors.ts'
import { type Shape, showShape } from './host-tensor.ts'

/** The shape that two shapes broadcast to, by NumPy's rule. Throws a {@link UsageError} naming `where`. */
export function broadcastShapes(where: string, a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length)
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1
    const y = b[i - rank + b.length] ?? 1
    if (x !== y && x !== 1 && y !== 1)
      throw new UsageError(`${where}: shapes ${showShape(a)} and ${showShape(b)} do not broadcast`)
    return x === 1 ? y : x
  })
}

/** The axes of `to` that must be summed to undo broadcasting `from` to it, counted in `to`. */
export function broadcastAxes(from: Shape, to: Shape): number[] {
  const offset = to.length - from.length
  return to.flatMap((extent, i) => (i < offset || (from[i - offset] === 1 && extent !== 1) ? [i] : []))
}

/** An axis counted from the end made positive; throws when it is out of range. */
export function normalizeAxis(where: string, axis: number, rank: number): number {
  const positive = axis < 0 ? axis + rank : axis
  if (!Number.isInteger(axis) || positive < 0 || positive >= rank)
    throw new UsageError(`${where}: axis ${axis} is out of range for a tensor of rank ${rank}`)
  return positive
}
