/** Programs that train or evaluate, whose steps are calls of ONNX Runtime and kernels between them. On the CPU, in Node. */
import { decodeModel } from '../../onnx/decode.ts'
import type { OnnxGraph, OnnxModel } from '../../onnx/model.ts'
import { median } from '../../stats/summary.ts'
import { UsageError } from '../../util/errors.ts'
import { arrayTypes, type HostTensor, type TensorData } from '../../util/host-tensor.ts'
import type { NodeTiming, RunTiming } from '../engine.ts'
import type { DeclaredInput, LoadedProgram, Loader, Recording } from '../loaded-program.ts'
import { aligned, ownTensor } from '../ort-tensor.ts'
import { LOOP, loopTimings } from '../profile.ts'
import type { Tensors } from '../protocol.ts'
import { flushesDenormals, kernelModule } from './code.ts'
import { StepMemory } from './memory.ts'
import { NativeRuntime, type NativeSession } from './onnxruntime.ts'
import { PartedCalls } from './parted-calls.ts'
import type { Crew } from './phases.ts'
import { planSteps, type StepPlan } from './plan.ts'
import { type BoundSegments, Segments } from './segments.ts'
import { Sessions } from './sessions.ts'
import { byName, bytesOf, StepTensors, workplaces } from './step-tensors.ts'
import { isKernel, isParted, namesReadBy, namesWrittenBy, type Task } from './task.ts'
import { Team, type TeamProgram } from './team.ts'

/** What the stepped programs of an engine share, from the first of them to the last. */
class Workshop {
  readonly memory = new StepMemory()
  readonly runtime: NativeRuntime
  readonly threads: number
  #team: Team | undefined
  #programs = 0

  constructor(runtime: NativeRuntime, threads: number) {
    this.runtime = runtime
    this.threads = threads
  }

  get team(): Team {
    this.#team ??= new Team(this.memory, this.threads)
    return this.#team
  }

  enter(): void {
    this.#programs++
  }

  /** Whether that was the last program: then nothing of the workshop is used any more. */
  async leave(): Promise<boolean> {
    if (--this.#programs > 0) return false
    await this.#team?.close()
    return true
  }
}

/**
 * A loader that runs programs that are loops of steps step by step, and leaves all others to `otherwise`.
 *
 * @throws Error where ONNX Runtime's library cannot be called, or there is no such memory
 */
export function steppedLoader(threads: number, otherwise: Loader): Loader {
  const runtime = new NativeRuntime()
  let workshop = new Workshop(runtime, threads)
  return async (bytes, recording) => {
    const own = workshop
    const planned = planOf(bytes, { threads, isMeasured: recording !== undefined })
    if (!planned || bytesOf(planned.plan, planned.work) > own.memory.free) return otherwise(bytes, recording)
    own.enter()
    const left = async () => {
      // Another model's state lies elsewhere: its memory begins anew, and what is stored keeps this one.
      if (await own.leave()) workshop = new Workshop(runtime, threads)
    }
    try {
      return new SteppedProgram(own, planned, recording, left)
    } catch {
      await left()
      return otherwise(bytes, recording)
    }
  }
}

interface Planned {
  readonly model: OnnxModel
  readonly plan: StepPlan
  readonly work: ReturnType<typeof workplaces>
}

/** Undefined where a program cannot run step by step, or has parts that Fovea does not know. */
function planOf(bytes: Uint8Array, crew: Crew): Planned | undefined {
  try {
    const model = decodeModel(bytes)
    const plan = planSteps(model, crew)
    return plan && { model, plan, work: workplaces(plan.values) }
  } catch {
    // Whatever is wrong with it, ONNX Runtime says so better, or runs it.
    return undefined
  }
}

/** Tasks of a phase, from one number to another (not included). */
interface TaskRange {
  readonly first: number
  readonly last: number
}

interface MeasuredTask {
  readonly task: Task
  /** In each step. */
  readonly seconds: readonly number[]
}

class SteppedProgram implements LoadedProgram {
  readonly readsShared = true
  readonly inputs: readonly DeclaredInput[]
  readonly outputs: readonly string[]
  readonly #left: () => Promise<void>
  readonly #plan: StepPlan
  readonly #memory: StepMemory
  readonly #sessions: Sessions
  readonly #begin: NativeSession | undefined
  readonly #segments: Segments
  readonly #end: NativeSession | undefined
  readonly #tasks: readonly Task[]
  readonly #parted: PartedCalls
  /** Of each phase that is tasks. */
  readonly #ranges: readonly (TaskRange | undefined)[]
  readonly #team: TeamProgram
  readonly #tensors: StepTensors
  /** Of states that a run begins with, and of what else kernels read. */
  readonly #homes: Tensors
  #recording: Recording | undefined
  /** Of each run that is measured: its steps and seconds, and the seconds of each task in each step. */
  readonly #measured: {
    readonly steps: number
    readonly seconds: number
    readonly tasks: readonly (readonly number[])[]
  }[] = []

  /** @param left called once it is released */
  constructor(
    workshop: Workshop,
    { model, plan, work }: Planned,
    recording: Recording | undefined,
    left: () => Promise<void>,
  ) {
    const { runtime, threads, memory } = workshop
    this.#left = left
    this.#plan = plan
    this.#memory = memory
    this.#recording = recording
    this.inputs = plan.inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape }))
    this.outputs = plan.outputs.map(({ name }) => name)
    const { phases, end } = plan
    this.#tensors = new StepTensors(plan, work, memory)
    this.#homes = {
      ...byName(plan.states, ({ name, input }) => [name, this.#tensors.states[input.name]!]),
      ...this.#tensors.read,
    }
    const sessions = new Sessions(runtime, model)
    this.#sessions = sessions
    // ONNX Runtime refuses a graph of nothing.
    const sessionOfSome = (graph: OnnxGraph) =>
      graph.nodes.length > 0 ? sessions.own(graph, { threads }) : undefined
    const graphs = phases.map(phase => ('graph' in phase ? phase.graph : undefined))
    const stages = phases.map(phase => ('graph' in phase ? [] : phase.stages))
    this.#tasks = stages.flat(2)
    this.#ranges = rangesOf(stages)
    let parted: PartedCalls | undefined
    try {
      this.#segments = new Segments(sessions, plan.isSmall ? 1 : threads, graphs, recording?.prefix)
      this.#begin = sessionOfSome(plan.begin)
      this.#end = sessionOfSome(end)
      const copies = plan.isSmall ? threads : 1
      parted = new PartedCalls(runtime, sessions, copies, this.#tasks, this.#tensors.all, plan.data)
      this.#parted = parted
      const kernels = this.#tasks.filter(isKernel)
      const addressOf = (name: string) => this.#tensors.all[name]!.data.byteOffset
      // After the first session: that switches this thread to zeros for numbers too small to be normal, and threads
      // inherit the switch.
      const code = kernelModule(kernels, addressOf, !flushesDenormals())
      this.#team = workshop.team.load(code, stages.flat(), parted.calls, plan.isSmall)
    } catch (error) {
      parted?.release()
      sessions.release()
      throw error
    }
  }

  async run(inputs: Tensors): Promise<Record<string, HostTensor>> {
    const began = performance.now()
    const { count, states, end, rows } = this.#plan
    const steps = Number(inputs[count]!.data[0])
    for (const { input } of rows) {
      const received = inputs[input]!.shape[0]!
      if (received < steps)
        throw new UsageError(
          `run: input "${input}": expected a row for each of ${steps} steps, received ${received}`,
        )
    }
    const given = this.#enter(inputs)
    const { stacked, tasks } = this.#steps(given, steps)
    const last = byName(states, ({ next, input }) => [next, this.#tensors.states[input.name]!])
    this.#end?.run(among({ ...given, ...last }, end.inputs), this.#tensors.last)
    if (this.#recording) this.#measured.push({ steps, seconds: (performance.now() - began) / 1000, tasks })
    return among({ ...stacked, ...last, ...this.#tensors.last }, this.#plan.outputs)
  }

  overwrites({ data }: HostTensor): boolean {
    return this.#memory.holds(data) && this.#tensors.homes.has(data.byteOffset)
  }

  homeOf(input: string): HostTensor | undefined {
    const home = this.inputs.some(({ name }) => name === input) ? this.#homes[input] : undefined
    return home && this.#memory.holds(home.data) ? home : undefined
  }

  /**
   * Writes the states that a run begins with, and what else kernels read. Gives the inputs as no step will
   * change them.
   */
  #enter(inputs: Tensors): Tensors {
    const { begin, end } = this.#plan
    const isAt = ({ data }: HostTensor, home: HostTensor | undefined) =>
      this.#memory.holds(data) && data.byteOffset === home?.data.byteOffset
    // What an earlier run left may lie where this one is about to write something else: only at the end, or at once.
    const lasts = Object.values(this.#tensors.last)
    const isReadLast = (name: string) => end.inputs.some(input => input.name === name)
    const given = byName(Object.entries(inputs), ([name, tensor]) => {
      const isLast = !isReadLast(name) && lasts.some(last => isAt(tensor, last))
      const stays = isAt(tensor, this.#homes[name]) || isLast || !this.overwrites(tensor)
      return [name, aligned(stays ? tensor : ownTensor(tensor))]
    })
    this.#begin?.run(among(given, begin.inputs), among(this.#homes, begin.outputs))
    for (const [name, home] of Object.entries(this.#homes)) {
      const tensor = given[name]
      if (tensor && !isAt(tensor, home)) put(tensor.data, home.data, 0)
    }
    return given
  }

  #steps(inputs: Tensors, count: number): { stacked: Tensors; tasks: number[][] } {
    const { states, perStep, iteration, condition, rows } = this.#plan
    const number = new BigInt64Array(new ArrayBuffer(8))
    const feeds: Tensors = {
      ...inputs,
      ...this.#tensors.states,
      ...this.#tensors.given,
      [iteration]: { dtype: 'int64', shape: [], data: number },
      [condition]: { dtype: 'bool', shape: [], data: Uint8Array.of(1) },
    }
    const copies = states.flatMap(({ input, copied }) =>
      copied ? [{ from: this.#tensors.values[copied]!, to: this.#tensors.states[input.name]! }] : [],
    )
    const stacks = perStep.map(({ value, output }) => {
      const { dtype, shape, data } = this.#tensors.values[value]!
      const all = new arrayTypes[dtype](count * data.length)
      return { output, data, tensor: { dtype, shape: [count, ...shape], data: all } }
    })
    const copied = rows.map(({ value, input }) => ({
      all: inputs[input]!.data,
      row: this.#tensors.given[value.name]!.data,
    }))
    const timings: number[][] = this.#tasks.map(() => [])
    const takeBack = this.#parted.give(inputs)
    let binding: BoundSegments | undefined
    try {
      binding = this.#segments.bind({ ...feeds, ...this.#tensors.values })
      for (let i = 0; i < count; i++) {
        number[0] = BigInt(i)
        for (const { all, row } of copied) put(all.subarray(i * row.length, (i + 1) * row.length), row, 0)
        for (const [phase, range] of this.#ranges.entries())
          if (range) this.#runTasks(range, timings)
          else binding.run(phase)
        for (const { from, to } of copies) put(from.data, to.data, 0)
        for (const { data, tensor } of stacks) put(data, tensor.data, i * data.length)
      }
    } finally {
      takeBack()
      binding?.release()
    }
    return { stacked: byName(stacks, ({ output, tensor }) => [output, tensor]), tasks: timings }
  }

  /** One after the other, with the time of each, where they are measured. */
  #runTasks({ first, last }: TaskRange, timings: number[][]): void {
    if (!this.#recording) {
      this.#team.run(first, last)
      return
    }
    for (let task = first; task < last; task++) {
      const began = performance.now()
      this.#team.run(task, task + 1)
      timings[task]!.push((performance.now() - began) / 1000)
    }
  }

  async profile(): Promise<RunTiming[] | undefined> {
    const recording = this.#recording
    if (!recording) return undefined
    this.#recording = undefined
    const measured = this.#measured.splice(0)
    try {
      const calls = await this.#segments.profile(recording)
      return measured.flatMap(({ steps, seconds, tasks }) => {
        const own = calls.map(runs => runs.splice(0, steps))
        if (steps === 0 || own.some(runs => runs.length < steps)) return []
        const measuredTasks = this.#tasks.map((task, i) => ({ task, seconds: tasks[i]! }))
        // Parts of one pass have one name, as have sums of blocks and what adds them up.
        const passes = [...Map.groupBy(measuredTasks, ({ task }) => task.name).values()]
        return [{ seconds, nodes: [...own.flatMap(loopTimings), ...passes.map(pass => this.#timing(pass))] }]
      })
    } finally {
      await recording.discard()
    }
  }

  #timing(pass: readonly MeasuredTask[]): NodeTiming {
    const { task, seconds } = pass[0]!
    const steps = seconds.map((_, step) => pass.reduce((sum, part) => sum + part.seconds[step]!, 0))
    const typesOf = (names: (task: Task) => readonly string[]) =>
      [...new Set(pass.flatMap(part => names(part.task)))].map(tensor => {
        const { dtype, shape } = this.#tensors.all[tensor]!
        return { dtype, shape }
      })
    return {
      name: task.name,
      op: isParted(task) ? task.op : task.updates ? 'Update' : 'Pass',
      loop: LOOP,
      calls: steps.length,
      seconds: steps.reduce((sum, value) => sum + value, 0),
      medianSeconds: median(steps),
      // Where nodes are measured, each that is run part by part is a task by itself.
      inputs: isParted(task) ? task.operands : typesOf(namesReadBy),
      outputs: typesOf(namesWrittenBy),
    }
  }

  async release(): Promise<void> {
    this.#parted.release()
    this.#sessions.release()
    await this.#left()
    await this.#recording?.discard()
  }
}

function rangesOf(stages: readonly (readonly (readonly Task[])[])[]): (TaskRange | undefined)[] {
  let last = 0
  return stages.map(phase => {
    const first = last
    last += phase.flat().length
    return last > first ? { first, last } : undefined
  })
}

/** Those of `tensors` that have these names. */
function among(tensors: Tensors, names: readonly { readonly name: string }[]): Record<string, HostTensor> {
  return byName(names, ({ name }) => [name, tensors[name]!])
}

/** Both are of one type. */
function put(from: TensorData, to: TensorData, at: number): void {
  to.set(from as Float32Array & BigInt64Array, at)
}
