/** Threads that run tasks together: this one and helpers, which share a memory. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { FoveaError } from '../../util/errors.ts'
import type { StepMemory } from './memory.ts'
import type { NativeCalls } from './native-calls.ts'
import {
  controlOf,
  type Delivery,
  fail,
  functionsOf,
  type HelperData,
  MOST_PIECES,
  MOST_THREADS,
  Runnable,
  setClaims,
  slots,
  waitFor,
  waitForHelpers,
} from './share.ts'
import { type Task, turnsOf, workOf } from './task.ts'
import { wasm } from './webassembly.ts'

/** Turns are counted to here and then from the beginning: as many as a claim has room for. */
const TURNS = 2 ** 18

interface Helper {
  readonly worker: Worker
  /** Brings programs. */
  readonly port: MessagePort
}

/** Tasks of one program, ready to run. */
export interface TeamProgram {
  /** Runs the tasks `first` to `last` (not included), stage after stage, and waits for all threads. */
  run(first: number, last: number): void
}

export class Team {
  readonly #memory: StepMemory
  readonly #control: Int32Array<SharedArrayBuffer>
  readonly #helpers: readonly Helper[]
  #programs = 0
  #turn = 0
  /** Why there are too few helpers. */
  #broken: FoveaError | undefined

  /** @param threads that run the tasks, this one among them */
  constructor(memory: StepMemory, threads: number) {
    this.#memory = memory
    const members = Math.min(threads, MOST_THREADS)
    this.#control = controlOf(members)
    this.#helpers = Array.from({ length: members - 1 }, (_, i) => this.#helper(members, i + 1))
  }

  #helper(members: number, member: number): Helper {
    const { port1, port2 } = new MessageChannel()
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
    const data: HelperData = {
      control: this.#control,
      memory: this.#memory.shared,
      port: port2,
      members,
      member,
    }
    const worker = new Worker(new URL(`./helper.${extension}`, import.meta.url), {
      workerData: data,
      transferList: [port2],
      execArgv: [],
    })
    worker.once('error', error => {
      this.#broken = new FoveaError(`a thread of the steps ended: ${error.message}`)
    })
    worker.unref()
    port1.unref()
    return { worker, port: port1 }
  }

  /**
   * @param bytes of the kernels, in their order among the tasks
   * @param stages tasks; those of one stage may run in any order
   * @param calls of the tasks that are no kernels
   * @param isAwake whether helpers stay awake for a moment after each turn, since the next one comes soon
   */
  load(
    bytes: Uint8Array<ArrayBuffer>,
    stages: readonly (readonly Task[])[],
    calls?: NativeCalls,
    isAwake = false,
  ): TeamProgram {
    const sizes = stages.flatMap((tasks, stage) =>
      tasks.map(task => ({ turns: turnsOf(task), work: workOf(task), stage })),
    )
    const delivery: Delivery = {
      program: this.#programs++,
      sizes,
      module: new wasm.Module(bytes),
      calls,
      isAwake,
    }
    const { program } = delivery
    for (const { port } of this.#helpers) port.postMessage(delivery)
    const own = new Runnable(functionsOf(delivery, this.#memory.shared), sizes, this.#helpers.length + 1)
    return {
      run: (first, last) => {
        const isAlone = this.#helpers.length === 0 || !own.isShared(first, last)
        if (isAlone) own.runAlone(first, last)
        else this.#run(program, own, first, last)
      },
    }
  }

  #run(program: number, own: Runnable, first: number, last: number): void {
    const control = this.#control
    const count = own.count(first, last)
    if (count >= MOST_PIECES) {
      const middle = (first + last) >> 1
      this.#run(program, own, first, middle)
      this.#run(program, own, middle, last)
      return
    }
    if (this.#broken) throw this.#broken
    this.#turn = (this.#turn + 1) % TURNS
    Atomics.store(control, slots.program, program)
    Atomics.store(control, slots.first, first)
    Atomics.store(control, slots.last, last)
    Atomics.store(control, slots.done, 0)
    setClaims(control, this.#turn, 0)
    Atomics.store(control, slots.turn, this.#turn)
    Atomics.notify(control, slots.turn)
    let reason: string | undefined
    try {
      own.runShare(control, this.#turn, 0, first, last)
      waitFor(control, count)
    } catch (error) {
      reason = (error as Error).message
      fail(control)
    } finally {
      // A helper that comes late must not take what the next turn's numbers say for a piece of this one.
      setClaims(control, this.#turn, MOST_PIECES)
    }
    if (Atomics.load(control, slots.failed) === 0) return
    // Whoever sees the failure may release what helpers are still at work with.
    const haveEnded = waitForHelpers(control)
    const messages = this.#messagesOfHelpers()
    const failure = new FoveaError(`a task failed: ${reason ?? messages[0] ?? 'without a reason'}`)
    // What failed may be the run's own, such as a row that the data does not have: the next one may be better.
    if (haveEnded) Atomics.store(control, slots.failed, 0)
    else this.#broken = failure
    throw failure
  }

  #messagesOfHelpers(): string[] {
    return this.#helpers.flatMap(({ port }) => {
      const messages: string[] = []
      for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port))
        messages.push(next.message as string)
      return messages
    })
  }

  /** Ends the other threads, which would keep the memory. */
  async close(): Promise<void> {
    // One that is late for a turn may be loading its program still: to end it there would end the process.
    if (!this.#broken) waitForHelpers(this.#control)
    await Promise.all(this.#helpers.map(({ worker }) => worker.terminate()))
  }
}
