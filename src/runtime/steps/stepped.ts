/** Training programs whose steps are calls of ONNX Runtime, with kernels between them. On the CPU, in Node. */
import { decodeModel } from '../../onnx/decode.ts'
import { encodeModel } from '../../onnx/encode.ts'
import type { OnnxGraph, OnnxModel } from '../../onnx/model.ts'
import { median } from '../../stats/summary.ts'
import {
  arrayTypes,
  bytesPerElement,
  type HostTensor,
  type Shape,
  sizeOf,
  type TensorData,
} from '../../util/host-tensor.ts'
import type { NodeTiming, RunTiming } from '../engine.ts'
import type { DeclaredInput, LoadedProgram, Loader, Recording } from '../loaded-program.ts'
import { ownTensor } from '../ort-tensor.ts'
import { LOOP, loopTimings, runTimings } from '../profile.ts'
import type { Tensors } from '../protocol.ts'
import { type Kernel, kernelModule } from './kernel.ts'
import { StepMemory } from './memory.ts'
import { NativeRuntime, type NativeSession } from './onnxruntime.ts'
import { planSteps, type StepPlan } from './plan.ts'
import { Team, type TeamProgram } from './team.ts'

/** What the stepped programs of an engine share. */
interface Workshop {
  readonly runtime: NativeRuntime
  readonly threads: number
  readonly memory: StepMemory
  readonly team: Team
}

/**
 * A loader that runs training programs step by step, and leaves all others to `otherwise`.
 *
 * @throws Error where ONNX Runtime's library cannot be called, or there is no such memory
 */
export function steppedLoader(threads: number, otherwise: Loader): Loader {
  const runtime = new NativeRuntime()
  const memory = new StepMemory()
  let team: Team | undefined
  return async (bytes, recording) => {
    const model = decodeModel(bytes)
    const plan = planSteps(model)
    if (!plan || bytesOf(plan) > MOST_BYTES) return otherwise(bytes, recording)
    team ??= new Team(memory, threads)
    return new SteppedProgram({ runtime, threads, memory, team }, model, plan, recording)
  }
}

/** Of states and values of a step; the memory has 4 GiB. */
const MOST_BYTES = 3.5 * 2 ** 30

const bytesOf = ({ states, step }: StepPlan): number =>
  [...states.map(({ input }) => input), ...step.outputs].reduce(
    (sum, { dtype, shape }) => sum + bytesPerElement[dtype] * sizeOf(shape as Shape),
    0,
  )

class SteppedProgram implements LoadedProgram {
  readonly readsShared = true
  readonly inputs: readonly DeclaredInput[]
  readonly outputs: readonly string[]
  readonly #plan: StepPlan
  readonly #memory: StepMemory
  readonly #begin: NativeSession | undefined
  readonly #step: NativeSession
  readonly #end: NativeSession | undefined
  readonly #kernels: TeamProgram
  /** By the names of the step's inputs. */
  readonly #states: Readonly<Record<string, HostTensor>>
  /** Values of a step that kernels read or that are copied, and outputs of a step. */
  readonly #values: Readonly<Record<string, HostTensor>>
  /** What the ending graph gives. */
  readonly #last: Readonly<Record<string, HostTensor>>
  /** Inputs of the program that kernels read. */
  readonly #read: Readonly<Record<string, HostTensor>>
  #recording: Recording | undefined
  /** Of each run that is measured: its steps and seconds, and the seconds of each kernel in each step. */
  readonly #measured: {
    readonly steps: number
    readonly seconds: number
    readonly kernels: readonly (readonly number[])[]
  }[] = []

  constructor(
    { runtime, threads, memory, team }: Workshop,
    model: OnnxModel,
    plan: StepPlan,
    recording: Recording | undefined,
  ) {
    this.#plan = plan
    this.#memory = memory
    this.#recording = recording
    this.inputs = plan.inputs.map(({ name, dtype, shape = [] }) => ({ name, dtype, shape }))
    this.outputs = plan.outputs.map(({ name }) => name)
    const place = (kind: string, name: string, shape: Shape): HostTensor => {
      const size = sizeOf(shape)
      const data = memory.floats(memory.place(`${kind} ${name}`, 4 * size), size)
      return { dtype: 'float32', shape, data }
    }
    const { states, step, end, kernels } = plan
    this.#states = byName(states, ({ name, input }) => [
      input.name,
      place('state', name, input.shape as Shape),
    ])
    this.#values = byName(step.outputs, ({ name, dtype, shape }) => [
      name,
      dtype === 'float32'
        ? place('value', name, shape as Shape)
        : { dtype, shape: shape as Shape, data: new arrayTypes[dtype](sizeOf(shape as Shape)) },
    ])
    this.#last = byName(end.outputs, ({ name, shape }) => [name, place('last', name, shape as Shape)])
    const known = { ...this.#states, ...this.#values }
    this.#read = byName(
      plan.inputs.filter(({ name }) => !(name in known) && kernels.some(kernel => isReadBy(name, kernel))),
      ({ name, shape }) => [name, place('input', name, shape as Shape)],
    )
    const offsets = { ...known, ...this.#read }
    const bytes = kernelModule(kernels, name => offsets[name]!.data.byteOffset)
    this.#kernels = team.load(bytes, kernels)
    const session = (graph: OnnxGraph, prefix?: string) =>
      runtime.session(encodeModel({ ...model, graph }), {
        threads,
        ...(prefix === undefined ? {} : { profilePrefix: prefix }),
      })
    // ONNX Runtime refuses a graph of nothing.
    const sessionOfSome = (graph: OnnxGraph) => (graph.nodes.length > 0 ? session(graph) : undefined)
    this.#begin = sessionOfSome(plan.begin)
    this.#step = session(step, recording?.prefix)
    this.#end = sessionOfSome(end)
  }

  async run(inputs: Tensors): Promise<Record<string, HostTensor>> {
    const began = performance.now()
    const { count, states, end } = this.#plan
    const steps = Number(inputs[count]!.data[0])
    this.#enter(inputs)
    const { stacked, kernels } = this.#steps(inputs, steps)
    const last = byName(states, ({ next, input }) => [next, this.#states[input.name]!])
    this.#end?.run(among(last, end.inputs), this.#last)
    if (this.#recording) this.#measured.push({ steps, seconds: (performance.now() - began) / 1000, kernels })
    return among({ ...stacked, ...last, ...this.#last }, this.#plan.outputs)
  }

  overwrites({ data }: HostTensor): boolean {
    return this.#memory.holds(data)
  }

  /** Writes the states that a run begins with, and what else kernels read. */
  #enter(inputs: Tensors): void {
    const { begin, states } = this.#plan
    const homes: Tensors = {
      ...byName(states, ({ name, input }) => [name, this.#states[input.name]!]),
      ...this.#read,
    }
    const isAt = ({ data }: HostTensor, home: HostTensor | undefined) =>
      this.#memory.holds(data) && data.byteOffset === home?.data.byteOffset
    // What an earlier run left may lie where this one is about to write something else.
    const lasts = Object.values(this.#last)
    const given = byName(Object.entries(inputs), ([name, tensor]) => {
      const stays = isAt(tensor, homes[name]) || lasts.some(last => isAt(tensor, last))
      return [name, stays ? tensor : ownTensor(tensor)]
    })
    this.#begin?.run(among(given, begin.inputs), among(homes, begin.outputs))
    for (const [name, home] of Object.entries(homes)) {
      const tensor = given[name]
      if (tensor && !isAt(tensor, home)) (home.data as Float32Array).set(tensor.data as Float32Array)
    }
  }

  #steps(inputs: Tensors, count: number): { stacked: Tensors; kernels: number[][] } {
    const { step, states, perStep, iteration, condition, kernels } = this.#plan
    const number = new BigInt64Array(new ArrayBuffer(8))
    const feeds: Tensors = {
      ...inputs,
      ...this.#states,
      [iteration]: { dtype: 'int64', shape: [], data: number },
      [condition]: { dtype: 'bool', shape: [], data: Uint8Array.of(1) },
    }
    const copies = states.flatMap(({ input, copied }) =>
      copied ? [{ from: this.#values[copied]!, to: this.#states[input.name]! }] : [],
    )
    const stacks = perStep.map(({ value, output }) => {
      const { dtype, shape, data } = this.#values[value]!
      const all = new arrayTypes[dtype](count * data.length)
      return { output, data, tensor: { dtype, shape: [count, ...shape], data: all } }
    })
    const timings: number[][] = kernels.map(() => [])
    const binding = this.#step.bind(among(feeds, step.inputs), this.#values)
    try {
      for (let i = 0; i < count; i++) {
        number[0] = BigInt(i)
        binding.run()
        this.#update(timings)
        for (const { from, to } of copies) put(from.data, to.data, 0)
        for (const { data, tensor } of stacks) put(data, tensor.data, i * data.length)
      }
    } finally {
      binding.release()
    }
    return { stacked: byName(stacks, ({ output, tensor }) => [output, tensor]), kernels: timings }
  }

  /** Runs all kernels; one after the other, with the time of each, where they are measured. */
  #update(timings: number[][]): void {
    if (!this.#recording) {
      this.#kernels.run(0, timings.length)
      return
    }
    for (const [kernel, seconds] of timings.entries()) {
      const began = performance.now()
      this.#kernels.run(kernel, kernel + 1)
      seconds.push((performance.now() - began) / 1000)
    }
  }

  async profile(): Promise<RunTiming[] | undefined> {
    const recording = this.#recording
    if (!recording) return undefined
    this.#recording = undefined
    this.#step.endProfiling()
    const measured = this.#measured.splice(0)
    try {
      const calls = await runTimings(recording.lines())
      return measured.flatMap(({ steps, seconds, kernels }) => {
        const own = calls.splice(0, steps)
        if (own.length < steps) return []
        const timings = this.#plan.kernels.map((kernel, i) => this.#timing(kernel, kernels[i]!))
        return [{ seconds, nodes: [...loopTimings(own), ...timings] }]
      })
    } finally {
      await recording.discard()
    }
  }

  #timing({ name, steps, stores }: Kernel, seconds: readonly number[]): NodeTiming {
    const known: Tensors = { ...this.#states, ...this.#values, ...this.#read }
    const operands = steps.flatMap(step => step.operands)
    const read = new Set(
      operands.flatMap(operand =>
        'tensor' in operand ? [operand.tensor] : 'scalar' in operand ? [operand.scalar] : [],
      ),
    )
    const typeOf = (tensor: string) => ({ dtype: known[tensor]!.dtype, shape: known[tensor]!.shape })
    return {
      name,
      op: 'Update',
      loop: LOOP,
      calls: seconds.length,
      seconds: seconds.reduce((sum, value) => sum + value, 0),
      medianSeconds: median(seconds),
      inputs: [...read].map(typeOf),
      outputs: stores.map(({ state }) => typeOf(state)),
    }
  }

  async release(): Promise<void> {
    for (const session of [this.#begin, this.#step, this.#end]) session?.release()
    await this.#recording?.discard()
  }
}

function byName<T, V>(items: readonly T[], entryOf: (item: T) => readonly [string, V]): Record<string, V> {
  return Object.fromEntries(items.map(entryOf))
}

/** Those of `tensors` that have these names. */
function among(tensors: Tensors, names: readonly { readonly name: string }[]): Record<string, HostTensor> {
  return byName(names, ({ name }) => [name, tensors[name]!])
}

/** Both are of one type. */
function put(from: TensorData, to: TensorData, at: number): void {
  to.set(from as Float32Array & BigInt64Array, at)
}

function isReadBy(name: string, { steps }: Kernel): boolean {
  const operands = steps.flatMap(step => step.operands)
  return operands.some(
    operand =>
      ('tensor' in operand && operand.tensor === name) || ('scalar' in operand && operand.scalar === name),
  )
}
