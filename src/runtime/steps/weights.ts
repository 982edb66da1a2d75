/** Products of a constant matrix and a value, as kernels see them. */
import { floatOf, intOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { type Access, NeedsParts, NeedsSplit, NeedsUnrolling } from './access.ts'
import type { StepBody } from './step-body.ts'

const products: ReadonlySet<string> = new Set(['MatMul', 'FusedMatMul', 'Gemm'])

export const isProduct = ({ op }: OnnxNode): boolean => products.has(op)

/** Row by row. */
export interface Weights {
  readonly rows: number
  readonly columns: number
  readonly values: readonly number[]
}

/** The matrix on the left of a product; undefined where it is no constant, or the product does more. */
export function weightsOf(node: OnnxNode, body: StepBody): Weights | undefined {
  const { inputs, attributes } = node
  const matrix = body.constant(inputs[0]!)
  const { alpha, ...others } = attributes
  const isPlain = floatOf(alpha, 1) === 1 && Object.values(others).every(other => intOf(other, 1) === 0)
  if (matrix?.shape.length !== 2 || inputs.length > 2 || !isPlain) return undefined
  const [rows, columns] = matrix.shape as [number, number]
  return { rows, columns, values: body.numbersOf(inputs[0]!)! }
}

const rowOf = ({ columns, values }: Weights, row: number): readonly number[] =>
  values.slice(row * columns, (row + 1) * columns)

/** A weight that is not zero, and the index of its column, which may move with loops. */
export interface Term {
  readonly weight: number
  readonly column: Access
}

/**
 * The terms of the row at an index, where all turns of the loops have the same weights, at columns that move evenly:
 * those of a convolution or of a tile's transform.
 *
 * @throws NeedsLoops where they do not
 */
export function termsOf(weights: Weights, row: Access, loops: readonly number[]): Term[] {
  const varying = row.strides.flatMap((stride, i) => (stride === 0 ? [] : [{ i, stride, extent: loops[i]! }]))
  const shifts = loops.map(() => 0)
  for (const loop of varying) {
    const others = varying.filter(other => other !== loop)
    const runs = runsOf(weights, row.offset, loop, others)
    if (runs.length > 1) throw dividing(weights, row.offset, loop, others, runs)
    shifts[loop.i] = runs[0]!.shift
  }
  const own = rowOf(weights, row.offset)
  for (const { i, extent } of varying) {
    const error = sharesTerms(own, shifts[i]!) ? together(i, extent) : undefined
    if (error) throw error
  }
  return own.flatMap((weight, column) =>
    weight === 0 ? [] : [{ weight, column: { offset: column, strides: shifts, lanes: 0 } }],
  )
}

/** Rows that share values are computed together, so that each is loaded once for all of them. */
const MOST_TOGETHER = 4

/** Whether a row and the same weights `shift` columns further read most values in common. */
function sharesTerms(row: readonly number[], shift: number): boolean {
  const used = row.flatMap((weight, column) => (weight === 0 ? [] : column))
  const common = used.filter(column => (row[column - shift] ?? 0) !== 0)
  return shift !== 0 && 2 * common.length >= used.length
}

/** What makes some turns of a loop one; undefined: nothing does. */
function together(loop: number, extent: number): Error | undefined {
  if (extent <= MOST_TOGETHER) return new NeedsUnrolling(loop)
  const rows = [MOST_TOGETHER, 3, 2].find(count => extent % count === 0)
  return rows === undefined ? undefined : new NeedsSplit(loop, rows)
}

/** Rows that a loop goes through. */
interface Way {
  readonly stride: number
  readonly extent: number
}

/** Turns of a loop with the same weights, `shift` columns further in each. */
interface Run {
  readonly from: number
  turns: number
  shift: number
}

/** The turns of a way from row `first`, wherever the other ways are, in the fewest runs. */
function runsOf(weights: Weights, first: number, { stride, extent }: Way, others: readonly Way[]): Run[] {
  const bases = others.reduce(
    (all, way) => all.flatMap(base => Array.from({ length: way.extent }, (_, k) => base + k * way.stride)),
    [first],
  )
  const runs: Run[] = []
  for (let turn = 0; turn < extent; turn++) {
    const run = runs.at(-1)
    const shift = run && commonShift(weights, bases, turn * stride, stride)
    if (run && shift !== undefined && (run.turns === 1 || run.shift === shift)) {
      run.turns++
      run.shift = shift
    } else runs.push({ from: turn, turns: 1, shift: 0 })
  }
  return runs
}

/** How much further right all of these rows have the weights of the rows `stride` before them; undefined: they do not. */
function commonShift(
  weights: Weights,
  bases: readonly number[],
  at: number,
  stride: number,
): number | undefined {
  const shifts = new Set(bases.map(base => shiftOf(weights, base + at - stride, base + at)))
  const [shift] = shifts
  return shifts.size === 1 ? shift : undefined
}

/** How much further right a row has another's weights. */
function shiftOf(weights: Weights, row: number, other: number): number | undefined {
  const [a, b] = [rowOf(weights, row), rowOf(weights, other)]
  const firstOf = (own: readonly number[]) => own.findIndex(weight => weight !== 0)
  const shift = firstOf(b) - firstOf(a)
  // Kernels' loops go forwards.
  if (shift < 0) return undefined
  const isMoved = a.every((weight, column) => weight === (b[column + shift] ?? 0))
  return isMoved && b.every((weight, column) => weight === (a[column - shift] ?? 0)) ? shift : undefined
}

/** Runs that are worth kernels of their own: a long one, and what is different at its ends. */
const areParts = (runs: readonly Run[], extent: number): boolean =>
  extent >= 4 && Math.max(...runs.map(({ turns }) => turns)) * 2 >= extent

/** What makes the turns of a loop alike, with the least code. */
function dividing(
  weights: Weights,
  first: number,
  loop: Way & { readonly i: number },
  others: readonly Way[],
  runs: readonly Run[],
): Error {
  const { i, stride, extent } = loop
  if (areParts(runs, extent))
    return new NeedsParts(
      i,
      runs.slice(1).map(({ from }) => from),
    )
  let [least, found]: [number, number | undefined] = [extent, undefined]
  for (let inner = 2; inner <= extent / 2; inner++) {
    if (extent % inner !== 0) continue
    const ways = [
      { stride: stride * inner, extent: extent / inner },
      { stride, extent: inner },
    ] as const
    for (const [way, other] of [ways, ways.toReversed()] as [Way, Way][]) {
      const own = runsOf(weights, first, way, [...others, other])
      const bodies = own.length * other.extent
      if ((own.length === 1 || areParts(own, way.extent)) && bodies < least) [least, found] = [bodies, inner]
    }
  }
  return found === undefined ? new NeedsUnrolling(i) : new NeedsSplit(i, found)
}
