/** What each thread of a team does with kernels, and how the threads talk. */
import type { MessagePort } from 'node:worker_threads'
import { VECTOR_BYTES } from './kernel.ts'
import { type WasmMemory, type WasmModule, wasm } from './webassembly.ts'

/** Numbers that the threads share. */
export const slots = {
  /** How many times the team was asked to run. */
  turn: 0,
  /** What to run: the program's number, its first kernel, and the one after the last. */
  program: 1,
  first: 2,
  last: 3,
  /** Helpers that have not ended this turn. */
  pending: 4,
} as const

export interface HelperData {
  /** From 1 on. */
  readonly member: number
  readonly members: number
  readonly control: Int32Array<SharedArrayBuffer>
  readonly memory: WasmMemory
  /** Brings programs. */
  readonly port: MessagePort
}

/** A program as it reaches a helper. */
export interface Delivery {
  readonly program: number
  readonly module: WasmModule
  readonly sizes: readonly number[]
}

/** A kernel from one offset in bytes to another. */
type Functions = readonly ((from: number, to: number) => void)[]

/** A program as a thread runs it: its kernels, and the values of each. */
export interface Runnable {
  readonly functions: Functions
  readonly sizes: readonly number[]
}

/** Below this, in values, waking another thread takes longer than the pass. */
const LEAST_SHARED = 50_000

/** Whether a kernel of this size is all members' work. */
export const isShared = (size: number): boolean => size >= LEAST_SHARED

export function instantiate(module: WasmModule, memory: WasmMemory): Functions {
  const { exports } = new wasm.Instance(module, { host: { memory } })
  return Object.keys(exports).map((_, i) => exports[i] as Functions[number])
}

/** Runs one member's part of some kernels; small ones are the first member's alone. */
export function runShare(
  { functions, sizes }: Runnable,
  first: number,
  last: number,
  member: number,
  members: number,
): void {
  for (let kernel = first; kernel < last; kernel++) {
    const vectors = Math.ceil((4 * sizes[kernel]!) / VECTOR_BYTES)
    const parts = isShared(sizes[kernel]!) ? members : 1
    if (member >= parts) continue
    const bound = (part: number) => Math.floor((vectors * part) / parts) * VECTOR_BYTES
    functions[kernel]!(bound(member), bound(member + 1))
  }
}
