/** Memory that ONNX Runtime and the kernels of all threads share: every tensor has one place, for good. */
import { FoveaError } from '../../util/errors.ts'
import { wasm } from './webassembly.ts'

const PAGE_BYTES = 65536
/** What 32 bits address. */
export const MOST_PAGES = 65536
/** Of a cache line, twice: the next one is fetched with it. */
const ALIGNMENT = 128

export class StepMemory {
  readonly shared = new wasm.Memory({ initial: 1, maximum: MOST_PAGES, shared: true })
  readonly #places = new Map<string, number>()
  // No tensor's address is 0.
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
    const used = offset + Math.ceil(Math.max(bytes, 1) / ALIGNMENT) * ALIGNMENT
    const missing = Math.ceil(used / PAGE_BYTES) - this.shared.buffer.byteLength / PAGE_BYTES
    if (used > MOST_PAGES * PAGE_BYTES)
      throw new FoveaError(`step memory: expected at most 4 GiB, received ${used} bytes`)
    if (missing > 0) this.shared.grow(missing)
    this.#used = used
    this.#places.set(key, offset)
    return offset
  }

  /** The floats at an offset. */
  floats(offset: number, length: number): Float32Array<SharedArrayBuffer> {
    return new Float32Array(this.shared.buffer, offset, length)
  }

  /** Whether values lie in this memory. */
  holds({ buffer, byteOffset }: ArrayBufferView): boolean {
    // Each growth makes another object of the same bytes, so that objects cannot be compared.
    return buffer instanceof SharedArrayBuffer && byteOffset > 0
  }
}
