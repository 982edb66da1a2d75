/** Kernels of what a step computes on its way. */
import {
  type Access,
  LANES,
  type LoopChange,
  NeedsLoops,
  NeedsSplit,
  NeedsUnrolling,
  Unfit,
} from './access.ts'
import { Expression } from './expression.ts'
import type { Kernel, KernelResult } from './kernel.ts'
import type { StepBody } from './step-body.ts'

/** Of a sum: each block of rows is summed by itself, so that threads share them and change no bit. */
export const BLOCKS = 16
/** Columns of a sum that are summed at once: as many vectors as registers have room for. */
const MOST_COLUMNS = 32
/** Turns of the innermost loop that become one: a line of a cache. */
const LINE = 4
/** Bodies up to so many steps are made longer by that. */
const SHORT = 600

/** What a kernel writes to: a value, or the sums of blocks of rows that become one. */
export interface Root {
  readonly name: string
  /** Of sums of blocks: what is summed. */
  readonly summed?: string
  /** Of a transpose: what is transposed. Each four places read four rows, and write what were four columns. */
  readonly turned?: string
  readonly tensor: string
  readonly size: number
  readonly loops: readonly number[]
  readonly places: readonly Place[]
}

interface Place {
  readonly read: Access
  readonly write: Access
}

/** A value that is computed as a whole. */
export function valueRoot(body: StepBody, name: string): Root {
  const size = body.sizeOf(name)
  const at: Access = { offset: 0, strides: [LANES], lanes: 1 }
  return {
    name,
    tensor: name,
    size,
    loops: [Math.ceil(size / LANES)],
    places: [{ read: at, write: at }],
  }
}

/** The transpose of a matrix, by turns of four rows and a line of a cache, or less. */
export function turnedRoot(body: StepBody, name: string, turned: string): Root {
  const [rows, columns] = body.typeOf(turned).shape as [number, number]
  const [vectors] = divisors(columns / LANES, LINE) as [number]
  const places = Array.from({ length: vectors * LANES }, (_, i): Place => {
    const row = i % LANES
    const read = { offset: row * columns + i - row, strides: [vectors * LANES, LANES * columns], lanes: 1 }
    const write = { offset: i * rows, strides: [vectors * LANES * rows, LANES], lanes: 1 }
    return { read, write }
  })
  const loops = [columns / LANES / vectors, rows / LANES]
  return { name, turned, tensor: name, size: rows * columns, loops, places }
}

/** The name of the sums of blocks of rows. */
export const blocksOf = (name: string): string => `${name}/blocks`

/** The sums of the rows of a matrix, by as many blocks as there can be, or by fewer. */
export function sumRoots(body: StepBody, name: string, summed: string): Root[] {
  const [rows] = body.typeOf(summed).shape as [number]
  return divisors(rows, BLOCKS).map(blocks => sumRoot(body, name, summed, blocks))
}

function sumRoot(body: StepBody, name: string, summed: string, blocks: number): Root {
  const [rows, columns] = body.typeOf(summed).shape as [number, number]
  const [together = 1] = divisors(columns / LANES, MOST_COLUMNS / LANES).map(vectors => LANES * vectors)
  const count = rows / blocks
  return {
    name,
    summed,
    tensor: blocksOf(name),
    size: blocks * columns,
    loops: [blocks, columns / together, count],
    places: Array.from({ length: together / LANES }, (_, i) => ({
      read: { offset: LANES * i, strides: [count * columns, together, columns], lanes: 1 },
      write: { offset: LANES * i, strides: [columns, together, 0], lanes: 1 },
    })),
  }
}

/** The kernel that adds the sums of blocks up. */
export function blocksKernel(body: StepBody, root: Root, name: string): Kernel {
  const size = body.sizeOf(root.name)
  const blocks = root.size / size
  const at = (block: number): Access => ({ offset: block * size, strides: [LANES], lanes: 1 })
  const operand = (block: number) => ({ tensor: root.tensor, at: at(block) })
  const steps: Kernel['steps'] = Array.from({ length: blocks }, (_, block) =>
    block === 0
      ? { op: 'Identity', operands: [operand(0)] }
      : { op: 'Add', operands: [{ step: block - 1 }, operand(block)] },
  )
  const stores = [{ tensor: root.name, at: at(0), step: blocks - 1 }]
  return { name, loops: [size / LANES], steps, stores, sums: [], updates: false }
}

/** One sum for each place, where turns that are one were to add to it several times. */
function summedUp(
  expression: Expression,
  sums: readonly KernelResult[],
  loops: readonly number[],
): KernelResult[] {
  const places = Map.groupBy(sums, ({ tensor, at }) => `${tensor} ${at.offset} ${at.strides.join()}`)
  const all = [...places.values()].map((terms): KernelResult => {
    const step = terms.map(term => term.step).reduce((a, b) => expression.sumOf(a, b))
    return { ...terms[0]!, step }
  })
  // Threads share the outermost loop, and sums are taken over the innermost ones.
  const first = all[0]?.at.strides.indexOf(0)
  const isOfLoops = ({ at }: KernelResult) =>
    at.strides.every((stride, i) => (stride === 0) === i >= first!) && first! > 0 && first! < loops.length
  if (!all.every(isOfLoops)) throw new Unfit('a sum over other loops than the innermost')
  return all
}

/** From `most` down to 1. */
const divisors = (value: number, most: number): number[] =>
  Array.from({ length: most }, (_, i) => most - i).filter(divisor => value % divisor === 0)

export interface BuiltKernels {
  /** In any order. */
  readonly kernels: readonly Kernel[]
  /** What they read from memory, and what they compute on the way. */
  readonly leaves: ReadonlySet<string>
  readonly inner: ReadonlySet<string>
}

/**
 * Kernels for roots of the same loops: one, or as many as the loops have parts that need code of their own.
 *
 * @throws Unfit where no kernel can compute them
 */
export function passKernels(
  body: StepBody,
  isLeaf: (name: string) => boolean,
  roots: readonly [Root, ...Root[]],
  name: string,
): BuiltKernels {
  const { loops } = roots[0]
  const places = roots.flatMap(root => root.places.map(place => ({ root, ...place })))
  const isLine = roots.some(({ summed, turned }) => (summed ?? turned) !== undefined)
  const built = kernelsOf(body, isLeaf, { loops, places, isLine }, name)
  const all = (names: (kernel: BuiltKernel) => ReadonlySet<string>) =>
    built.map(names).reduce((a, b) => a.union(b))
  return {
    kernels: built.map(({ kernel }) => kernel),
    leaves: all(({ leaves }) => leaves),
    inner: all(({ inner }) => inner),
  }
}

/** What a kernel writes, and in which loops. */
interface Scope {
  /** Whether nothing is won by more turns in one: they are a line of a cache, or what they add up is all there is. */
  readonly isLine: boolean
  readonly loops: readonly number[]
  readonly places: readonly (Place & { readonly root: Root })[]
}

interface BuiltKernel {
  readonly kernel: Kernel
  readonly leaves: ReadonlySet<string>
  readonly inner: ReadonlySet<string>
}

/** Tries loops until they are such that each turn does the same. */
function kernelsOf(
  body: StepBody,
  isLeaf: (name: string) => boolean,
  scope: Scope,
  name: string,
): BuiltKernel[] {
  let built: BuiltKernel
  try {
    built = kernelOf(body, isLeaf, scope, name)
  } catch (error) {
    if (!(error instanceof NeedsLoops)) throw error
    return changed(scope, error).flatMap(part => kernelsOf(body, isLeaf, part, name))
  }
  const isShort = built.kernel.steps.length <= SHORT
  const faster = inOrder(scope, body, built) ?? (isShort ? withLine(scope) : undefined)
  if (!faster) return [built]
  try {
    return kernelsOf(body, isLeaf, faster, name)
  } catch (error) {
    if (error instanceof Unfit) return [built]
    throw error
  }
}

/** The scopes that are needed in the place of one. */
function changed(scope: Scope, needs: NeedsLoops): Scope[] {
  if (scope.places.some(({ root }) => root.turned !== undefined))
    throw new Unfit('other loops of a transpose')
  const changes = needs.changes(scope.loops)
  if (changes.length > 1 && scope.places.some(({ write }) => write.strides[needs.loop] === 0))
    throw new Unfit('parts of a sum')
  return changes.map(change => withLoops(scope, change))
}

function withLoops(scope: Scope, { loops, accesses }: LoopChange): Scope {
  return {
    ...scope,
    loops,
    places: scope.places.flatMap(({ root, read, write }) => {
      const writes = accesses(write)
      return accesses(read).map((own, i) => ({ root, read: own, write: writes[i]! }))
    }),
  }
}

/** With loops in the order of the largest value that is read, if it is larger than what is written; undefined: they are. */
function inOrder(scope: Scope, body: StepBody, { kernel }: BuiltKernel): Scope | undefined {
  const { loops, places, isLine } = scope
  const reads = kernel.steps.flatMap(({ operands }) => operands.flatMap(o => ('tensor' in o ? o : [])))
  const [first] = reads.toSorted((a, b) => body.sizeOf(b.tensor) - body.sizeOf(a.tensor))
  if (isLine || !first || body.sizeOf(first.tensor) <= places[0]!.root.size) return undefined
  const { strides } = first.at
  const order = loops.map((_, loop) => loop).sort((a, b) => strides[b]! - strides[a]!)
  if (strides.includes(0) || order.every((loop, i) => loop === i)) return undefined
  return withLoops(scope, {
    loops: order.map(loop => loops[loop]!),
    accesses: access => [{ ...access, strides: order.map(loop => access.strides[loop]!) }],
  })
}

/** With as many turns of the innermost loop in one as make a line of a cache; undefined: it is so, or cannot be. */
function withLine(scope: Scope): Scope | undefined {
  const last = scope.loops.length - 1
  const turns = scope.loops[last]!
  if (scope.isLine || turns % LINE !== 0) return undefined
  const [lines] = turns > LINE ? changed(scope, new NeedsSplit(last, LINE)) : [scope]
  const { length } = lines!.loops
  const [line] = length > 1 ? changed(lines!, new NeedsUnrolling(length - 1)) : [lines]
  return { ...line!, isLine: true }
}

/** Of each four rows. */
function columnsOf(expression: Expression, rows: readonly number[]): number[] {
  return rows.flatMap((_, i) =>
    i % LANES === 0 ? expression.columnsOf(rows.slice(i, i + LANES) as [number, number, number, number]) : [],
  )
}

/** One kernel, in these loops; throws what they would have to be. */
function kernelOf(
  body: StepBody,
  isLeaf: (name: string) => boolean,
  { loops, places }: Scope,
  name: string,
): BuiltKernel {
  const expression = new Expression(body, isLeaf, loops)
  const found = places.map(({ root, read }) => {
    const source = root.summed ?? root.turned
    return source === undefined ? expression.computedAt(root.name, read) : expression.readAt(source, read)
  })
  const all = places[0]!.root.turned === undefined ? found : columnsOf(expression, found)
  const results = places.map(({ root, write }, i) => ({
    isSum: root.summed !== undefined,
    result: { tensor: root.tensor, at: write, step: all[i]! },
  }))
  const resultsOf = (sums: boolean) =>
    results.filter(({ isSum }) => isSum === sums).map(({ result }) => result)
  const { steps, leaves, inner } = expression
  const sums = summedUp(expression, resultsOf(true), loops)
  const kernel: Kernel = { name, loops, steps, stores: resultsOf(false), sums, updates: false }
  return { kernel, leaves, inner }
}
