/** Kernels of what a step computes on its way. */
import {
  type Access,
  LANES,
  NeedsSplit,
  NeedsUnrolling,
  splitAccess,
  splitLoops,
  Unfit,
  unrolled,
} from './access.ts'
import { Expression } from './expression.ts'
import type { Kernel, KernelResult } from './kernel.ts'
import type { StepBody } from './step-body.ts'

/** Of a sum: each block of rows is summed by itself, so that threads share them and change no bit. */
const BLOCKS = 16
/** Columns of a sum that are summed at once: as many vectors as registers have room for. */
const MOST_COLUMNS = 32
/** Turns of the innermost loop that become one: a line of a cache. */
const TURNS = 4
/** Bodies up to so many steps are made longer by that. */
const SHORT = 600

/** What a kernel writes to: a value, or the sums of blocks of rows that become one. */
export interface Root {
  readonly name: string
  /** Of sums of blocks: what is summed. */
  readonly summed?: string
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

/** The name of the sums of blocks of rows. */
const blocksOf = (name: string): string => `${name}/blocks`

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

export interface BuiltKernel {
  readonly kernel: Kernel
  /** What it reads from memory, and what it computes on the way. */
  readonly leaves: ReadonlySet<string>
  readonly inner: ReadonlySet<string>
}

/**
 * One kernel for roots of the same loops.
 *
 * @throws Unfit where no kernel can compute them
 */
export function passKernel(
  body: StepBody,
  isLeaf: (name: string) => boolean,
  roots: readonly [Root, ...Root[]],
  name: string,
): BuiltKernel {
  let loops = roots[0].loops
  let places = roots.flatMap(root => root.places.map(place => ({ root, place })))
  const change = (how: (access: Access) => Access[]) => {
    places = places.flatMap(({ root, place }) => {
      const writes = how(place.write)
      return how(place.read).map((read, i) => ({ root, place: { read, write: writes[i]! } }))
    })
  }
  const unroll = (loop: number) => {
    const extent = loops[loop]!
    change(access => unrolled(access, loop, extent))
    loops = loops.toSpliced(loop, 1)
  }
  const split = (at: NeedsSplit) => {
    change(access => [splitAccess(access, at)])
    loops = splitLoops(loops, at)
  }
  let isLong = roots.some(({ summed }) => summed !== undefined)
  for (;;)
    try {
      const expression = new Expression(body, isLeaf, loops)
      const results = places.map(({ root, place }): KernelResult => {
        const step =
          root.summed === undefined
            ? expression.computedAt(root.name, place.read)
            : expression.readAt(root.summed, place.read)
        return { tensor: root.tensor, at: place.write, step }
      })
      const last = loops.length - 1
      if (!isLong && expression.steps.length <= SHORT && loops[last]! % TURNS === 0 && loops[last]! > 1) {
        isLong = true
        if (loops[last]! > TURNS) split(new NeedsSplit(last, TURNS))
        if (loops.length > 1) unroll(loops.length - 1)
        continue
      }
      const isSummed = (i: number) => places[i]!.root.summed !== undefined
      const kernel = {
        name,
        loops,
        steps: expression.steps,
        stores: results.filter((_, i) => !isSummed(i)),
        sums: summedUp(
          expression,
          results.filter((_, i) => isSummed(i)),
          loops,
        ),
        updates: false,
      }
      return { kernel, leaves: expression.leaves, inner: expression.inner }
    } catch (error) {
      if (error instanceof NeedsSplit) split(error)
      else if (error instanceof NeedsUnrolling && loops.length > 1) unroll(error.loop)
      else if (error instanceof NeedsUnrolling) throw new Unfit('nothing but one turn')
      else throw error
    }
}
