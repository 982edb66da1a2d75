/** The parts of graphs, prepared for whichever thread runs them. */
import type { HostTensor, Shape, TensorData } from '../../util/host-tensor.ts'
import type { Tensors } from '../protocol.ts'
import { fixedArray } from './memory.ts'
import type { NativeCall, NativeCalls } from './native-calls.ts'
import { type NativeBinding, type NativeRuntime, NOTHING } from './onnxruntime.ts'
import type { PartedGraph, PartedNumber, PartedValue } from './parted-graph.ts'
import type { Sessions, SharedSession } from './sessions.ts'
import { isParted, type Task } from './task.ts'

/** Where parts take an input that has no place before a run. */
interface Gap {
  readonly tensor: string
  readonly binding: NativeBinding
  /** Of the session's input. */
  readonly name: string
}

export class PartedCalls {
  /** Undefined where no task is run part by part. */
  readonly calls: NativeCalls | undefined
  readonly #runtime: NativeRuntime
  readonly #bindings: NativeBinding[] = []
  readonly #gaps: Gap[] = []

  /**
   * @param copies of sessions, for threads that are to run short graphs at once
   * @param tensors what the tasks read and write
   * @param data names of what has no place before a run: see {@link give}
   */
  constructor(
    runtime: NativeRuntime,
    sessions: Sessions,
    copies: number,
    tasks: readonly Task[],
    tensors: Tensors,
    data: ReadonlySet<string>,
  ) {
    this.#runtime = runtime
    const parts = new Map<number, NativeCall[]>()
    try {
      for (const [i, task] of tasks.entries())
        if (isParted(task)) {
          // A task of one part has another copy than its neighbours, which may be alike.
          const numbers = Array.from({ length: Math.min(copies, task.parts) }, (_, n) => (i + n) % copies)
          parts.set(i, this.#callsOf(task, sessions.alike(task.graph, numbers), tensors, data))
        }
    } catch (error) {
      this.release()
      throw error
    }
    if (parts.size > 0) this.calls = { ...runtime.addresses, parts }
  }

  #callsOf(
    { graph, parts, inputs, outputs }: PartedGraph,
    alike: readonly SharedSession[],
    tensors: Tensors,
    data: ReadonlySet<string>,
  ): NativeCall[] {
    const { names } = alike[0]!
    const nameOf = ({ name }: { readonly name: string }) => names.get(name) ?? name
    const isGap = (value: PartedValue | PartedNumber): value is PartedValue =>
      'tensor' in value && data.has(value.tensor)
    const tensorOf = (value: PartedValue | PartedNumber, part: number): Omit<HostTensor, 'shape'> => {
      if ('numbers' in value) {
        const number = fixedArray('int64', 1) as BigInt64Array
        number[0] = BigInt(value.numbers[part]!)
        return { dtype: 'int64', data: number }
      }
      const { dtype, data: all } = tensors[value.tensor]!
      return { dtype, data: value.isWhole ? all : valuesOfPart(all, part, parts) }
    }
    const bound = (
      info: PartedGraph['graph']['inputs'][number],
      value: PartedValue | PartedNumber,
      part: number,
    ) => [nameOf(info), { ...tensorOf(value, part), shape: info.shape as Shape }] as const
    return Array.from({ length: parts }, (_, part) => {
      const { session } = alike[Math.floor((part * alike.length) / parts)]!
      const given = graph.inputs.map((info, i) => {
        const value = inputs[i]!
        return isGap(value) ? ([nameOf(info), undefined] as const) : bound(info, value, part)
      })
      const made = graph.outputs.map((info, i) => bound(info, outputs[i]!, part))
      const binding = session.bind(Object.fromEntries(given), Object.fromEntries(made))
      this.#bindings.push(binding)
      for (const [i, value] of inputs.entries())
        if (isGap(value)) this.#gaps.push({ tensor: value.tensor, binding, name: nameOf(graph.inputs[i]!) })
      return binding.call
    })
  }

  /**
   * Gives the tasks the data of a run.
   *
   * @returns takes it back
   */
  give(data: Tensors): () => void {
    const values = new Map<string, bigint>()
    const takeBack = () => {
      for (const { binding, name } of this.#gaps) binding.give(name, NOTHING)
      for (const value of values.values()) this.#runtime.release('ReleaseValue', value)
    }
    try {
      for (const { tensor, binding, name } of this.#gaps) {
        const value = values.get(tensor) ?? this.#runtime.value(data[tensor]!)
        values.set(tensor, value)
        binding.give(name, value)
      }
    } catch (error) {
      takeBack()
      throw error
    }
    return takeBack
  }

  release(): void {
    for (const binding of this.#bindings) binding.release()
  }
}

function valuesOfPart(data: TensorData, part: number, parts: number): TensorData {
  const length = data.length / parts
  return data.subarray(part * length, (part + 1) * length) as TensorData
}
