/** The protobuf wire format: https://protobuf.dev/programming-guides/encoding/. Only what ONNX files use. */
import { FoveaError, UsageError } from '../util/errors.ts'

/** How a field is laid out: the low three bits of its tag. */
export const wireTypes = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const

const utf8 = new TextEncoder()
// A byte order mark inside a name is a character of it.
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Writes one message as a list of parts, so that a nested message is never copied
 * before {@link Writer.finish}.
 */
export class Writer {
  readonly #parts: Uint8Array[] = []
  #length = 0

  int(field: number, value: number): void {
    this.#tag(field, wireTypes.varint)
    this.#varint(value)
  }

  float(field: number, value: number): void {
    this.#tag(field, wireTypes.fixed32)
    this.#append(new Uint8Array(Float32Array.of(value).buffer))
  }

  floats(field: number, values: readonly number[]): void {
    this.bytes(field, new Uint8Array(Float32Array.from(values).buffer))
  }

  ints(field: number, values: readonly number[]): void {
    const packed = new Writer()
    for (const value of values) packed.#varint(value)
    this.message(field, packed)
  }

  string(field: number, value: string): void {
    this.bytes(field, utf8.encode(value))
  }

  /** `value` is not copied: it must not change until {@link finish}. */
  bytes(field: number, value: Uint8Array): void {
    this.#tag(field, wireTypes.bytes)
    this.#varint(value.length)
    this.#append(value)
  }

  message(field: number, content: Writer): void {
    this.#tag(field, wireTypes.bytes)
    this.#varint(content.#length)
    for (const part of content.#parts) this.#parts.push(part)
    this.#length += content.#length
  }

  finish(): Uint8Array {
    const all = new Uint8Array(this.#length)
    let offset = 0
    for (const part of this.#parts) {
      all.set(part, offset)
      offset += part.length
    }
    return all
  }

  #tag(field: number, wireType: number): void {
    this.#varint(field * 8 + wireType)
  }

  #varint(value: number): void {
    if (!Number.isSafeInteger(value))
      throw new UsageError(`ONNX model: expected a whole number within 2^53, received ${value}`)
    const bytes: number[] = []
    // A negative int64 is its two's complement: always ten bytes.
    let rest = value < 0 ? BigInt.asUintN(64, BigInt(value)) : BigInt(value)
    if (value >= 0 && value < 0x80) bytes.push(value)
    else {
      for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
      bytes.push(Number(rest))
    }
    this.#append(Uint8Array.from(bytes))
  }

  #append(part: Uint8Array): void {
    this.#parts.push(part)
    this.#length += part.length
  }
}

/**
 * One field of a message: a number as it stands on the wire, or the bytes of a text, list or nested message.
 */
export interface Field {
  readonly number: number
  readonly wireType: number
  /** The varint or fixed value, unsigned; 0 for bytes. */
  readonly bits: bigint
  /** The payload of a length-delimited field; empty for the others. */
  readonly bytes: Uint8Array
}

/** The fields of a message, in the order of the file. */
export function* readFields(message: Uint8Array): Generator<Field> {
  const reader = new Reader(message)
  while (!reader.atEnd) {
    const tag = Number(reader.varint())
    const number = Math.floor(tag / 8)
    const wireType = tag % 8
    if (number < 1 || number > 0x1fffffff) throw corrupt(`${number} is no field number`)
    if (wireType === wireTypes.varint) yield { number, wireType, bits: reader.varint(), bytes: NONE }
    else if (wireType === wireTypes.fixed64) yield { number, wireType, bits: reader.fixed(8), bytes: NONE }
    else if (wireType === wireTypes.fixed32) yield { number, wireType, bits: reader.fixed(4), bytes: NONE }
    else if (wireType === wireTypes.bytes)
      yield { number, wireType, bits: 0n, bytes: reader.take(Number(reader.varint())) }
    else throw corrupt(`wire type ${wireType} is unknown`)
  }
}

/** The unsigned values of a repeated number: packed into one field, or one value a field. */
export function readNumbers(field: Field, element: 'varint' | 'fixed32' | 'fixed64'): bigint[] {
  if (field.wireType === wireTypes[element]) return [field.bits]
  if (field.wireType !== wireTypes.bytes) throw unexpected(field, element)
  const reader = new Reader(field.bytes)
  const values: bigint[] = []
  while (!reader.atEnd)
    values.push(element === 'varint' ? reader.varint() : reader.fixed(element === 'fixed32' ? 4 : 8))
  return values
}

/** An int64 as a number; refused beyond 2^53, where it would become another number. */
export function asInteger(bits: bigint): number {
  const value = Number(BigInt.asIntN(64, bits))
  if (!Number.isSafeInteger(value))
    throw unsupported(`integers beyond 2^53, received ${BigInt.asIntN(64, bits)}`)
  return value
}

export function readInteger(field: Field): number {
  if (field.wireType !== wireTypes.varint) throw unexpected(field, 'varint')
  return asInteger(field.bits)
}

export function asFloat32(bits: bigint): number {
  return new Float32Array(Uint32Array.of(Number(bits)).buffer)[0]!
}

export function readFloat(field: Field): number {
  if (field.wireType !== wireTypes.fixed32) throw unexpected(field, 'fixed32')
  return asFloat32(field.bits)
}

export function readBytes(field: Field): Uint8Array {
  if (field.wireType !== wireTypes.bytes) throw unexpected(field, 'bytes')
  return field.bytes
}

export function readString(field: Field): string {
  try {
    return strictUtf8.decode(readBytes(field))
  } catch (error) {
    if (error instanceof FoveaError) throw error
    throw corrupt(`field ${field.number} is not UTF-8 text`)
  }
}

export function corrupt(what: string): FoveaError {
  return new FoveaError(`ONNX model: ${what}: the file is damaged, or not an ONNX model`)
}

/** A sound file that uses what Fovea does not hold. */
export function unsupported(what: string): FoveaError {
  return new FoveaError(`ONNX model: Fovea does not read ${what}`)
}

function unexpected(field: Field, expected: string): FoveaError {
  return corrupt(`field ${field.number} is not laid out as ${expected}`)
}

const NONE = new Uint8Array(0)

class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length
  }

  varint(): bigint {
    // Four bytes of seven bits fit a number without a sign: the common case, and ten
    // times faster than a bigint.
    let low = 0
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#byte()
      low |= (byte & 0x7f) << shift
      if (byte < 0x80) return BigInt(low)
    }
    let value = BigInt(low)
    for (let shift = 28n; shift < 70n; shift += 7n) {
      const byte = this.#byte()
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asUintN(64, value)
    }
    throw corrupt('a number is longer than ten bytes')
  }

  fixed(size: 4 | 8): bigint {
    const bytes = this.take(size)
    const view = new DataView(bytes.buffer, bytes.byteOffset, size)
    return size === 4 ? BigInt(view.getUint32(0, true)) : view.getBigUint64(0, true)
  }

  /** The next `length` bytes, sharing memory with the file. */
  take(length: number): Uint8Array {
    const left = this.#bytes.length - this.#at
    if (length > left) throw corrupt(`expected ${length} more bytes, received ${left}`)
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  #byte(): number {
    if (this.atEnd) throw corrupt('it ends within a number')
    return this.#bytes[this.#at++]!
  }
}
