/** The parts of graphs, prepared for whichever thread runs them. */
import type { Shape, TensorData } from '../../util/host-tensor.ts'
import type { Tensors } from '../protocol.ts'
import type { NativeCall, NativeCalls } from './native-calls.ts'
import type { NativeBinding, NativeRuntime } from './onnxruntime.ts'
import type { PartedGraph, PartedValue } from './parted.ts'
import type { Sessions } from './sessions.ts'
import { isParted, type Task } from './task.ts'

export class PartedCalls {
  /** Undefined where no task is run part by part. */
  readonly calls: NativeCalls | undefined
  readonly #bindings: NativeBinding[] = []

  /** @param tensors what the tasks read and write */
  constructor(runtime: NativeRuntime, sessions: Sessions, tasks: readonly Task[], tensors: Tensors) {
    const parts = new Map<number, NativeCall[]>()
    try {
      for (const [i, task] of tasks.entries())
        if (isParted(task)) parts.set(i, this.#callsOf(task, sessions, tensors))
    } catch (error) {
      this.release()
      throw error
    }
    if (parts.size > 0) this.calls = { ...runtime.addresses, parts }
  }

  #callsOf(
    { graph, parts, inputs, outputs }: PartedGraph,
    sessions: Sessions,
    tensors: Tensors,
  ): NativeCall[] {
    const { session, names } = sessions.shared(graph, 1)
    const bound = (infos: PartedGraph['graph']['inputs'], values: readonly PartedValue[], part: number) =>
      Object.fromEntries(
        infos.map(({ name, shape }, i) => {
          const { tensor, isWhole } = values[i]!
          const { data } = tensors[tensor]!
          const own = isWhole ? data : valuesOfPart(data, part, parts)
          return [names.get(name) ?? name, { dtype: 'float32', shape: shape as Shape, data: own } as const]
        }),
      )
    return Array.from({ length: parts }, (_, part) => {
      const binding = session.bind(bound(graph.inputs, inputs, part), bound(graph.outputs, outputs, part))
      this.#bindings.push(binding)
      return binding.call
    })
  }

  release(): void {
    for (const binding of this.#bindings) binding.release()
  }
}

function valuesOfPart(data: TensorData, part: number, parts: number): TensorData {
  const length = data.length / parts
  return data.subarray(part * length, (part + 1) * length) as TensorData
}
