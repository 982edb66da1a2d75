/**
 * Memory that ONNX Runtime and the kernels of all threads share: a tensor's place is its own for good, and that of a
 * value of a step for as long as it is needed.
 */
import { FoveaError } from '../../util/errors.ts'
import { arrayTypes, bytesPerElement, type DType, type TensorData } from '../../util/host-tensor.ts'
import { wasm } from './webassembly.ts'

const PAGE_BYTES = 65536
/** What 32 bits address. */
export const MOST_PAGES = 65536
const MEMORY_BYTES = MOST_PAGES * PAGE_BYTES
/** Of a cache line, twice: the next one is fetched with it. */
const ALIGNMENT = 128

/** What a place for so many bytes takes. */
export const placeBytes = (bytes: number): number => Math.ceil(Math.max(bytes, 1) / ALIGNMENT) * ALIGNMENT

export class StepMemory {
  readonly shared = new wasm.Memory({ initial: 1, maximum: MOST_PAGES, shared: true })
  readonly #places = new Map<string, number>()
  readonly #work: { readonly bytes: number; readonly offset: number }[] = []
  /** Each growth makes another object of the same bytes. */
  readonly #buffers = new Set<ArrayBufferLike>()
  // No tensor's address is 0; and beyond the last one there is room for the four values of a kernel's last turn.
  #used = ALIGNMENT

  /**
   * The offset of `bytes` bytes that are known as `name`: the same for programs that ask for the same, which
   * hold one model's state in turns. Zeros at first.
   *
   * @throws FoveaError where 4 GiB are not enough
   */
  place(name: string, bytes: number): number {
    const key = `${bytes} ${name}`
    const known = this.#places.get(key)
    if (known !== undefined) return known
    const offset = this.#used
    const used = offset + placeBytes(bytes)
    const missing = Math.ceil((used + ALIGNMENT) / PAGE_BYTES) - this.shared.buffer.byteLength / PAGE_BYTES
    if (used + ALIGNMENT > MEMORY_BYTES)
      throw new FoveaError(`step memory: expected at most 4 GiB, received ${used} bytes`)
    if (missing > 0) this.shared.grow(missing)
    this.#used = used
    this.#places.set(key, offset)
    return offset
  }

  /** The offset of a block for values of a step: that of another program, if it is large enough. */
  workplace(bytes: number): number {
    const known = this.#work.find(block => block.bytes >= bytes)
    if (known) return known.offset
    const offset = this.place('work', bytes)
    this.#work.push({ bytes, offset })
    return offset
  }

  /** Bytes that no tensor has. */
  get free(): number {
    return MEMORY_BYTES - this.#used
  }

  /** The floats at an offset. */
  floats(offset: number, length: number): Float32Array<SharedArrayBuffer> {
    const { buffer } = this.shared
    this.#buffers.add(buffer)
    return new Float32Array(buffer, offset, length)
  }

  /** Whether values lie in this memory. */
  holds({ buffer }: ArrayBufferView): boolean {
    return this.#buffers.has(buffer)
  }
}

/** A value that is needed from one phase to another, both included. */
export interface Lasting {
  readonly bytes: number
  readonly from: number
  readonly to: number
}

/** Offsets of values in one block, such that no two share bytes while both are needed; and the block's bytes. */
export function packed<T extends Lasting>(values: readonly T[]): { offsets: Map<T, number>; bytes: number } {
  const offsets = new Map<T, number>()
  let total = 0
  for (const value of values.toSorted((a, b) => b.bytes - a.bytes)) {
    const others = [...offsets]
      .filter(([other]) => other.from <= value.to && value.from <= other.to)
      .map(([other, offset]) => [offset, offset + placeBytes(other.bytes)] as const)
      .sort(([a], [b]) => a - b)
    const bytes = placeBytes(value.bytes)
    let offset = 0
    for (const [begin, end] of others) {
      if (offset + bytes <= begin) break
      offset = Math.max(offset, end)
    }
    offsets.set(value, offset)
    total = Math.max(total, offset + bytes)
  }
  return { offsets, bytes: total }
}

/** An array that stays where it is, as native code and other threads need it; small ones may else be moved. */
export function fixedArray(dtype: DType, length: number): TensorData {
  const arrayType: new (buffer: SharedArrayBuffer) => TensorData = arrayTypes[dtype]
  return new arrayType(new SharedArrayBuffer(bytesPerElement[dtype] * length))
}
