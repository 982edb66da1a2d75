/** Where the tensors of a stepped program lie: those that tasks read and write, in memory that threads share. */
import type { ValueInfo } from '../../onnx/model.ts'
import { type HostTensor, type Shape, sizeOf } from '../../util/host-tensor.ts'
import type { Tensors } from '../protocol.ts'
import type { StatePiece } from './given.ts'
import { fixedArray, packed, placeBytes, type StepMemory } from './memory.ts'
import type { StepPlan, StepValue } from './plan.ts'

type Workplaces = ReturnType<typeof workplaces>

/** What a program places in the memory, at most. */
export function bytesOf({ states, end, taskInputs, rows }: StepPlan, work: Workplaces): number {
  const values = [...states.map(({ input }) => input), ...rows.map(({ value }) => value)]
  const placed = [...values, ...end.outputs, ...taskInputs]
  const own = placed.reduce((sum, { shape }) => sum + placeBytes(4 * sizeOf(shape as Shape)), 0)
  return own + placeBytes(work.bytes)
}

/** Where values of the steps lie in one block; those of other types than float32 lie elsewhere. */
export function workplaces(values: readonly StepValue[]) {
  const floats = values.filter(({ dtype }) => dtype === 'float32')
  return packed(floats.map(({ name, shape, from, to }) => ({ name, bytes: 4 * sizeOf(shape), from, to })))
}

export class StepTensors {
  /** By the names of the step's inputs. */
  readonly states: Tensors
  /** What phases of a step give to others, and outputs of a step. */
  readonly values: Tensors
  /** What the ending graph gives. */
  readonly last: Tensors
  /** Inputs of the program that tasks read, but for the data. */
  readonly read: Tensors
  /** Rows of inputs, for each step, and pieces of states. */
  readonly given: Tensors
  /** All of these but what the ending graph gives: what tasks read and write. */
  readonly all: Tensors
  /** Where in the memory the tensors lie that a run takes and leaves. */
  readonly homes: ReadonlySet<number>
  readonly #memory: StepMemory

  constructor(plan: StepPlan, work: Workplaces, memory: StepMemory) {
    this.#memory = memory
    this.states = byName(plan.states, ({ name, input }) => [
      input.name,
      this.#place('state', { ...input, name }),
    ])
    const begin = memory.workplace(work.bytes)
    const offsets = new Map([...work.offsets].map(([{ name }, offset]) => [name, begin + offset]))
    this.values = byName(plan.values, ({ name, dtype, shape }) => {
      const offset = offsets.get(name)
      const data =
        offset === undefined ? fixedArray(dtype, sizeOf(shape)) : memory.floats(offset, sizeOf(shape))
      return [name, { dtype, shape, data }]
    })
    this.last = byName(plan.end.outputs, output => [output.name, this.#place('last', output)])
    this.read = byName(plan.taskInputs, input => [input.name, this.#place('input', input)])
    this.given = {
      ...byName(plan.rows, ({ value }) => [value.name, this.#place('row', value)]),
      ...byName(plan.pieces, piece => [piece.value.name, this.#pieceOf(piece)]),
    }
    this.all = { ...this.states, ...this.values, ...this.read, ...this.given }
    const homes = [this.states, this.last, this.read].flatMap(tensors => Object.values(tensors))
    this.homes = new Set(homes.map(({ data }) => data.byteOffset))
  }

  #place(kind: string, { name, dtype, shape: extents }: ValueInfo): HostTensor {
    const shape = extents as Shape
    const size = sizeOf(shape)
    if (dtype !== 'float32') return { dtype, shape, data: fixedArray(dtype, size) }
    const offset = this.#memory.place(`${kind} ${name}`, 4 * size)
    return { dtype, shape, data: this.#memory.floats(offset, size) }
  }

  #pieceOf({ value: { dtype, shape }, state, at }: StatePiece): HostTensor {
    const { byteOffset } = this.states[state]!.data
    return { dtype, shape, data: this.#memory.floats(byteOffset + 4 * at, sizeOf(shape)) }
  }
}

export function byName<T, V>(
  items: readonly T[],
  entryOf: (item: T) => readonly [string, V],
): Record<string, V> {
  return Object.fromEntries(items.map(entryOf))
}
