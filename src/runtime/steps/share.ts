/** What each thread of a team does with tasks, and how the threads talk. */
import type { MessagePort } from 'node:worker_threads'
import { type NativeCalls, partRunners } from './native-calls.ts'
import { type WasmMemory, type WasmModule, wasm } from './webassembly.ts'

/** Numbers that the threads share. */
export const slots = {
  /** Another number each time that the team is asked to run. */
  turn: 0,
  /** What to run: the program's number, its first task, and the one after the last. */
  program: 1,
  first: 2,
  last: 3,
  /** Pieces of this turn's work that are done; far more where a helper has failed. */
  done: 4,
  /** Whether a helper has failed. */
  failed: 5,
  /** Helpers that may be at work. */
  active: 6,
  /** For each member, the turn and the next of its pieces that nobody has taken: see {@link claimOf}. */
  claims: 7,
} as const

/** The numbers that so many threads share. */
export const controlOf = (members: number): Int32Array<SharedArrayBuffer> =>
  new Int32Array(new SharedArrayBuffer(4 * (slots.claims + members)))

export interface HelperData {
  readonly control: Int32Array<SharedArrayBuffer>
  readonly memory: WasmMemory
  /** Brings programs. */
  readonly port: MessagePort
  readonly members: number
  /** Which of them this one is. */
  readonly member: number
}

/** What threads must know of a task. */
export interface TaskSize {
  /** What they share of it. */
  readonly turns: number
  /** Operations on vectors, over all turns. */
  readonly work: number
  /** Tasks of one stage may run in any order; of one after the other they may not. */
  readonly stage: number
}

/** A program as it reaches a helper. */
export interface Delivery {
  readonly program: number
  readonly sizes: readonly TaskSize[]
  /** Of the tasks that are kernels. */
  readonly module: WasmModule
  /** Of the others; undefined: there are none. */
  readonly calls: NativeCalls | undefined
  /** Whether helpers stay awake for a moment after each turn. */
  readonly isAwake: boolean
}

/** A task from one turn to another (not included). */
type TaskFunction = (from: number, to: number) => void

/** Some turns of a task. */
interface Piece {
  readonly task: number
  readonly from: number
  readonly to: number
  readonly stage: number
  /** How many pieces must be done before this one begins: those of earlier stages. */
  readonly after: number
}

/** The work of a turn. */
interface Work {
  /** By member: each takes its own first, so that what it wrote and what it reads next lie in its own cache. */
  readonly pieces: readonly (readonly Piece[])[]
  /** Of all members. */
  readonly count: number
  /** Whether it is more than waking another thread. */
  readonly isShared: boolean
}

// In operations on vectors, of which a microsecond has some thousands: waking another thread takes longer than less
// work than the first, and taking a piece should cost nothing beside doing it.
const LEAST_SHARED = 60_000
const LEAST_PIECE = 15_000
/** So that a thread that comes late leaves little to wait for. */
const PIECES_PER_MEMBER = 8

/** A pass over memory is no faster with more. */
export const MOST_THREADS = 8

/** Pieces of one turn: what the lower bits of a claim count. */
const CLAIM_BITS = 12
export const MOST_PIECES = 2 ** CLAIM_BITS - 1

/** A claim says that a member's pieces before `next` of a turn are taken; a turn is known by its lower bits. */
const claimOf = (turn: number, next: number): number => (turn << CLAIM_BITS) | next

/** Lets members take pieces of a turn, or none of them. */
export function setClaims(
  control: Int32Array<SharedArrayBuffer>,
  turn: number,
  next: 0 | typeof MOST_PIECES,
) {
  for (let at: number = slots.claims; at < control.length; at++)
    Atomics.store(control, at, claimOf(turn, next))
}

/**
 * Whether there may be pieces of a turn to take. What a turn is to run is changed only when it has been closed, so
 * that what was read of an open turn belongs together.
 */
export function isOpen(control: Int32Array<SharedArrayBuffer>, turn: number): boolean {
  const next = Atomics.load(control, slots.claims) - claimOf(turn, 0)
  return next >= 0 && next < MOST_PIECES
}

/** What a thread runs the tasks of a program with. */
export function functionsOf({ sizes, module, calls }: Delivery, memory: WasmMemory): TaskFunction[] {
  const { exports } = new wasm.Instance(module, { host: { memory } })
  const runners = calls && partRunners(calls)
  let kernels = 0
  return sizes.map((_, i) => runners?.get(i) ?? (exports[kernels++] as TaskFunction))
}

/** A program as a thread runs it. */
export class Runnable {
  readonly #functions: readonly TaskFunction[]
  readonly #sizes: readonly TaskSize[]
  readonly #members: number
  readonly #works = new Map<number, Work>()

  constructor(functions: readonly TaskFunction[], sizes: readonly TaskSize[], members: number) {
    this.#functions = functions
    this.#sizes = sizes
    this.#members = members
  }

  /** How many pieces the tasks from `first` to `last` (not included) are. */
  count(first: number, last: number): number {
    return this.#workOf(first, last).count
  }

  /** Whether the tasks are more work than waking another thread. */
  isShared(first: number, last: number): boolean {
    return this.#workOf(first, last).isShared
  }

  /** All of it, by this thread alone. */
  runAlone(first: number, last: number): void {
    for (let task = first; task < last; task++) this.#functions[task]!(0, this.#sizes[task]!.turns)
  }

  /** Takes pieces of a turn's work until none is left: stage by stage, its own before those of others. */
  runShare(
    control: Int32Array<SharedArrayBuffer>,
    turn: number,
    member: number,
    first: number,
    last: number,
  ): void {
    const { pieces } = this.#workOf(first, last)
    const end = this.#sizes[last - 1]!.stage
    for (let stage = this.#sizes[first]!.stage; stage <= end; stage++)
      for (let i = 0; i < this.#members; i++) {
        const owner = (member + i) % this.#members
        this.#take(control, turn, owner, pieces[owner]!, stage)
      }
  }

  #take(
    control: Int32Array<SharedArrayBuffer>,
    turn: number,
    owner: number,
    pieces: readonly Piece[],
    stage: number,
  ): void {
    const begin = claimOf(turn, 0)
    const slot = slots.claims + owner
    for (;;) {
      const claim = Atomics.load(control, slot)
      // Another turn's claim is far from this one's; a turn that has ended has no more pieces.
      const piece = pieces[claim - begin]
      if (piece?.stage !== stage) return
      if (Atomics.compareExchange(control, slot, claim, claim + 1) !== claim) continue
      waitFor(control, piece.after)
      this.#functions[piece.task]!(piece.from, piece.to)
      Atomics.add(control, slots.done, 1)
      Atomics.notify(control, slots.done)
    }
  }

  #workOf(first: number, last: number): Work {
    const key = first * this.#sizes.length * 2 + last
    const known = this.#works.get(key)
    if (known) return known
    const pieces = Array.from({ length: this.#members }, (): Piece[] => [])
    let count = 0
    let after = 0
    let { stage } = this.#sizes[first]!
    for (let task = first; task < last; task++) {
      const size = this.#sizes[task]!
      if (size.stage !== stage) {
        stage = size.stage
        after = count
      }
      const most = Math.min(size.turns, this.#members * PIECES_PER_MEMBER)
      const parts = Math.max(1, Math.min(most, Math.floor(size.work / LEAST_PIECE)))
      const bound = (part: number) => Math.floor((size.turns * part) / parts)
      for (let i = 0; i < parts; i++) {
        const member = Math.floor((i * this.#members) / parts)
        pieces[member]!.push({ task, from: bound(i), to: bound(i + 1), stage, after })
      }
      count += parts
    }
    const operations = this.#sizes.slice(first, last).reduce((sum, { work }) => sum + work, 0)
    const work = { pieces, count, isShared: operations >= LEAST_SHARED }
    this.#works.set(key, work)
    return work
  }
}

/** Lets nobody wait for what a helper cannot do. */
export function fail(control: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(control, slots.failed, 1)
  Atomics.add(control, slots.done, FAILED)
  Atomics.notify(control, slots.done)
}

/** More pieces than a turn has. */
const FAILED = 2 ** 28

/** Waits until no helper is at work; they find no more pieces. False: one still is after a minute. */
export function waitForHelpers(control: Int32Array<SharedArrayBuffer>): boolean {
  for (;;) {
    const active = Atomics.load(control, slots.active)
    if (active === 0) return true
    if (Atomics.wait(control, slots.active, active, PATIENCE_MS) === 'timed-out') return false
  }
}

/** About 20 microseconds; another thread is rarely further behind, and a wait in the kernel takes as long. */
const SPINS = 20_000
const PATIENCE_MS = 60_000

/** Stays awake until there is another turn, if there is one soon. */
export function stayAwake(control: Int32Array<SharedArrayBuffer>, turn: number): void {
  for (let spins = 0; spins < SPINS; spins++) if (Atomics.load(control, slots.turn) !== turn) return
}

/**
 * Waits until so many pieces are done.
 *
 * @throws Error where another thread has not done its own for a minute
 */
export function waitFor(control: Int32Array<SharedArrayBuffer>, pieces: number): void {
  for (let spins = 0; spins < SPINS; spins++) if (Atomics.load(control, slots.done) >= pieces) return
  for (;;) {
    const done = Atomics.load(control, slots.done)
    if (done >= pieces) return
    const isLate = Atomics.wait(control, slots.done, done, PATIENCE_MS) === 'timed-out'
    // A process that was stopped for longer finds the time over before it finds what was done.
    if (isLate && Atomics.load(control, slots.done) === done)
      throw new Error(`a thread of the steps has not answered for ${PATIENCE_MS / 1000} s`)
  }
}
