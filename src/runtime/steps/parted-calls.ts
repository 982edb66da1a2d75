/** The parts of graphs, prepared for whichever thread runs them. */
import type { HostTensor, Shape, TensorData } from '../../util/host-tensor.ts'
import type { Tensors } from '../protocol.ts'
import { fixedArray } from './memory.ts'
import type { NativeCall, NativeCalls } from './native-calls.ts'
import type { NativeBinding, NativeRuntime } from './onnxruntime.ts'
import type { PartedGraph, PartedNumber, PartedValue } from './parted-graph.ts'
import type { Sessions, SharedSession } from './sessions.ts'
import { isParted, type Task } from './task.ts'

/** Where parts take an input that has no place before a run. */
interface Gap {
  readonly tensor: string
  readonly binding: NativeBinding
  readonly at: number
}

export class PartedCalls {
  /** Undefined where no task is run part by part. */
  readonly calls: NativeCalls | undefined
  readonly #runtime: NativeRuntime
  readonly #bindings: NativeBinding[] = []
  readonly #gaps: Gap[] = []

  /**
   * @param copies of sessions, for threads that are to run short graphs at once
   * @param tensors what the tasks read and write, but for the data: see {@link give}
   */
  constructor(
    runtime: NativeRuntime,
    sessions: Sessions,
    copies: number,
    tasks: readonly Task[],
    tensors: Tensors,
  ) {
    this.#runtime = runtime
    const parts = new Map<number, NativeCall[]>()
    try {
      for (const [i, task] of tasks.entries())
        if (isParted(task)) {
          // A task of one part has another copy than its neighbours, which may be alike.
          const numbers = Array.from({ length: Math.min(copies, task.parts) }, (_, n) => (i + n) % copies)
          const alike = numbers.map(copy => sessions.shared(task.graph, 1, copy))
          parts.set(i, this.#callsOf(task, alike, tensors))
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
  ): NativeCall[] {
    const { names } = alike[0]!
    const tensorOf = (
      value: PartedValue | PartedNumber,
      part: number,
    ): Omit<HostTensor, 'shape'> | undefined => {
      if ('numbers' in value) {
        const data = fixedArray('int64', 1) as BigInt64Array
        data[0] = BigInt(value.numbers[part]!)
        return { dtype: 'int64', data }
      }
      const tensor = tensors[value.tensor]
      if (!tensor) return undefined
      const { dtype, data } = tensor
      return { dtype, data: value.isWhole ? data : valuesOfPart(data, part, parts) }
    }
    const bound = (
      infos: PartedGraph['graph']['inputs'],
      values: readonly (PartedValue | PartedNumber)[],
      part: number,
    ) =>
      Object.fromEntries(
        infos.map(({ name, shape }, i) => {
          const tensor = tensorOf(values[i]!, part)
          return [names.get(name) ?? name, tensor && { ...tensor, shape: shape as Shape }] as const
        }),
      )
    return Array.from({ length: parts }, (_, part) => {
      const { session } = alike[Math.floor((part * alike.length) / parts)]!
      const own = bound(graph.inputs, inputs, part)
      const binding = session.bind(own, bound(graph.outputs, outputs, part) as Tensors)
      this.#bindings.push(binding)
      for (const [at, tensor] of Object.values(own).entries())
        if (!tensor) this.#gaps.push({ tensor: (inputs[at] as PartedValue).tensor, binding, at })
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
    for (const { tensor, binding, at } of this.#gaps) {
      const value = values.get(tensor) ?? this.#runtime.value(data[tensor]!)
      values.set(tensor, value)
      binding.give(at, value)
    }
    return () => {
      for (const value of values.values()) this.#runtime.release('ReleaseValue', value)
    }
  }

  release(): void {
    for (const binding of this.#bindings) binding.release()
  }
}

function valuesOfPart(data: TensorData, part: number, parts: number): TensorData {
  const length = data.length / parts
  return data.subarray(part * length, (part + 1) * length) as TensorData
}
