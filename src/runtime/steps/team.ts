/** Threads that run kernels together: this one and helpers, which share a memory. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import { FoveaError } from '../../util/errors.ts'
import type { Kernel } from './kernel.ts'
import type { StepMemory } from './memory.ts'
import { type HelperData, instantiate, isShared, type Runnable, runShare, slots } from './share.ts'
import { wasm } from './webassembly.ts'

/** A pass over memory is no faster with more. */
const MOST_THREADS = 8
/** About 20 microseconds; another thread is rarely further behind, and a wait in the kernel takes as long. */
const SPINS = 20_000
/** A share takes milliseconds, also where many programs want the same cores. */
const PATIENCE_MS = 60_000

interface Helper {
  readonly worker: Worker
  /** Brings programs. */
  readonly port: MessagePort
}

/** Kernels of one program, ready to run. */
export interface TeamProgram {
  /** Runs the kernels `first` to `last` (not included), and waits for all threads. */
  run(first: number, last: number): void
}

export class Team {
  readonly #memory: StepMemory
  readonly #control: Int32Array<SharedArrayBuffer>
  readonly #helpers: readonly Helper[]
  #programs = 0
  /** Why there are too few helpers. */
  #broken: FoveaError | undefined

  /** @param threads that run the kernels, this one among them */
  constructor(memory: StepMemory, threads: number) {
    this.#memory = memory
    this.#control = new Int32Array(new SharedArrayBuffer(4 * Object.keys(slots).length))
    const members = Math.min(threads, MOST_THREADS)
    this.#helpers = Array.from({ length: members - 1 }, (_, i) => this.#helper(i + 1, members))
  }

  #helper(member: number, members: number): Helper {
    const { port1, port2 } = new MessageChannel()
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const data: HelperData = {
      member,
      members,
      control: this.#control,
      memory: this.#memory.shared,
      port: port2,
    }
    const worker = new Worker(new URL(`./helper.${extension}`, import.meta.url), {
      workerData: data,
      transferList: [port2],
      execArgv: [],
    })
    worker.once('error', error => {
      this.#broken = new FoveaError(`a thread of the update ended: ${error.message}`)
    })
    worker.unref()
    port1.unref()
    return { worker, port: port1 }
  }

  load(bytes: Uint8Array<ArrayBuffer>, kernels: readonly Kernel[]): TeamProgram {
    const module = new wasm.Module(bytes)
    const program = this.#programs++
    const sizes = kernels.map(({ size }) => size)
    for (const { port } of this.#helpers) port.postMessage({ program, module, sizes })
    const functions = instantiate(module, this.#memory.shared)
    return { run: (first, last) => this.#run(program, { functions, sizes }, first, last) }
  }

  #run(program: number, own: Runnable, first: number, last: number): void {
    const control = this.#control
    // Waking a helper for nothing takes as long as a hundred thousand values.
    const members = own.sizes.slice(first, last).some(isShared) ? this.#helpers.length + 1 : 1
    if (this.#broken) throw this.#broken
    if (members > 1) {
      Atomics.store(control, slots.program, program)
      Atomics.store(control, slots.first, first)
      Atomics.store(control, slots.last, last)
      Atomics.store(control, slots.pending, members - 1)
      Atomics.add(control, slots.turn, 1)
      Atomics.notify(control, slots.turn)
    }
    runShare(own, first, last, 0, members)
    if (members > 1) this.#wait()
  }

  /** Ends the other threads, which would keep the memory. */
  async close(): Promise<void> {
    await Promise.all(this.#helpers.map(({ worker }) => worker.terminate()))
  }

  #wait(): void {
    const control = this.#control
    for (let spins = 0; spins < SPINS; spins++) if (Atomics.load(control, slots.pending) === 0) return
    let left = Atomics.load(control, slots.pending)
    while (left > 0) {
      // Its own report cannot arrive while this thread waits.
      if (Atomics.wait(control, slots.pending, left, PATIENCE_MS) === 'timed-out')
        throw new FoveaError(`a thread of the update has not answered for ${PATIENCE_MS / 1000} s`)
      left = Atomics.load(control, slots.pending)
    }
  }
}
