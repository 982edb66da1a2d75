/**
 * Reads the pickles that CIFAR's authors publish, as data: Python's pickle protocol 2 (PEP 307), of
 * dictionaries, lists, numbers, strings and NumPy arrays of uint8. Nothing is imported, looked up or called:
 * three names of NumPy stand for what this file does itself, and every other name or opcode is an error.
 */
import { FoveaError } from '../util/errors.ts'
import type { NamedBytes } from './idx.ts'

/** A NumPy array of uint8, its last dimension fastest. */
export class PickledArray {
  shape: readonly number[] = []
  data: Uint8Array = new Uint8Array(0)
}

/** A byte string is a view of the file; a dictionary's keys are text. */
export type Pickled =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | Pickled[]
  | Map<string, Pickled>
  | PickledArray
  | Name
  | ElementType

/** One of the names that a pickle may mention. */
class Name {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}

/** Of an array: uint8, the only one. */
class ElementType {
  readonly code = 'u1'
}

const RECONSTRUCT = 'numpy.core.multiarray _reconstruct'
const ARRAY = 'numpy ndarray'
const ELEMENT_TYPE = 'numpy dtype'
const names: readonly string[] = [RECONSTRUCT, ARRAY, ELEMENT_TYPE]

/**
 * Reads a pickle.
 *
 * @throws FoveaError naming the file, the opcode and its offset
 */
export function readPickle(source: NamedBytes): Pickled {
  return new PickleReader(source).read()
}

/** A byte string or text as text; undefined for anything else. */
export function pickledText(value: Pickled | undefined): string | undefined {
  return value instanceof Uint8Array ? latin1(value) : typeof value === 'string' ? value : undefined
}

class PickleReader {
  readonly #file: string
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #stack: Pickled[] = []
  readonly #marks: number[] = []
  readonly #memo = new Map<number, Pickled>()
  /** The opcode that is being read. */
  #start = 0
  #at = 0

  /** Opcodes that put a value on the stack. */
  readonly #values = new Map<number, () => Pickled>([
    [code('N'), () => null],
    [0x88, () => true],
    [0x89, () => false],
    [code('K'), () => this.#uint8()],
    [code('M'), () => this.#view.getUint16(this.#take(2), true)],
    [code('J'), () => this.#view.getInt32(this.#take(4), true)],
    [code('U'), () => this.#string(this.#uint8())],
    [code('T'), () => this.#string(this.#uint32())],
    [code('X'), () => new TextDecoder().decode(this.#string(this.#uint32()))],
    [code(']'), () => []],
    [code(')'), () => []],
    [code('}'), () => new Map()],
    [code('t'), () => this.#popToMark()],
    [0x85, () => this.#tuple(1)],
    [0x86, () => this.#tuple(2)],
    [0x87, () => this.#tuple(3)],
    [code('h'), () => this.#remembered(this.#uint8())],
    [code('j'), () => this.#remembered(this.#uint32())],
    [code('c'), () => this.#name()],
    [code('R'), () => this.#reduce()],
  ])
  /** Opcodes that change what is on the stack. */
  readonly #actions = new Map<number, () => void>([
    [0x80, () => this.#checkProtocol(this.#uint8())],
    [code('('), () => this.#marks.push(this.#stack.length)],
    [code('a'), () => this.#append([this.#pop()])],
    [code('e'), () => this.#append(this.#popToMark())],
    [code('s'), () => this.#setItems(this.#tuple(2))],
    [code('u'), () => this.#setItems(this.#popToMark())],
    [code('q'), () => this.#memo.set(this.#uint8(), this.#top())],
    [code('r'), () => this.#memo.set(this.#uint32(), this.#top())],
    [code('b'), () => this.#build()],
  ])

  constructor({ file, bytes }: NamedBytes) {
    this.#file = file
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  read(): Pickled {
    for (;;) {
      this.#start = this.#at
      const opcode = this.#uint8()
      if (this.#start === 0 && opcode !== 0x80) throw this.#fail('expected a pickle of protocol 2')
      if (opcode !== code('.')) {
        const value = this.#values.get(opcode)
        const act = this.#actions.get(opcode)
        if (value) this.#stack.push(value())
        else if (act) act()
        else throw this.#fail('not an opcode that these files need')
        continue
      }
      const value = this.#pop()
      if (this.#stack.length > 0 || this.#marks.length > 0 || this.#at !== this.#bytes.length)
        throw this.#fail('expected the end of the file and one value')
      return value
    }
  }

  #checkProtocol(version: number): void {
    if (version !== 2) throw this.#fail(`expected protocol 2, received ${version}`)
  }

  #tuple(length: number): Pickled[] {
    return Array.from({ length }, () => this.#pop()).reverse()
  }

  #name(): Name {
    const name = `${this.#line()} ${this.#line()}`
    if (!names.includes(name))
      throw this.#fail(`expected a uint8 array of NumPy, received the global "${name}"`)
    return new Name(name)
  }

  #append(values: readonly Pickled[]): void {
    const list = this.#top()
    if (!Array.isArray(list)) throw this.#fail('expected a list')
    for (const value of values) list.push(value)
  }

  #setItems(items: readonly Pickled[]): void {
    const dictionary = this.#top()
    if (!(dictionary instanceof Map)) throw this.#fail('expected a dictionary')
    for (let i = 0; i < items.length; i += 2) {
      const key = pickledText(items[i])
      if (key === undefined || i + 1 >= items.length)
        throw this.#fail('expected text keys, each with a value')
      dictionary.set(key, items[i + 1]!)
    }
  }

  /** What Python would call: NumPy's empty array, to be filled by the next opcode, and its element types. */
  #reduce(): Pickled {
    const args = this.#pop()
    const name = this.#pop()
    if (!(name instanceof Name) || !Array.isArray(args)) throw this.#fail('expected a global and a tuple')
    const [first] = args
    if (name.name === RECONSTRUCT && first instanceof Name && first.name === ARRAY) return new PickledArray()
    if (name.name === ELEMENT_TYPE && pickledText(first) === 'u1') return new ElementType()
    throw this.#fail(`expected a uint8 array, received ${name.name} of ${pickledText(first) ?? 'another'}`)
  }

  #build(): void {
    const state = this.#pop()
    const target = this.#top()
    // An element type's state is its byte order and alignment: nothing for single bytes.
    if (target instanceof ElementType) return
    if (!(target instanceof PickledArray) || !Array.isArray(state))
      throw this.#fail('expected an array to fill')
    const [, shape, type, byColumns, values] = state
    if (
      !isShape(shape) ||
      !(type instanceof ElementType) ||
      typeof byColumns !== 'boolean' ||
      !(values instanceof Uint8Array)
    )
      throw this.#fail('expected the shape, the type, the order and the bytes of a uint8 array')
    const size = shape.reduce((a, b) => a * b, 1)
    if (byColumns && shape.length !== 2) throw this.#fail('expected 2 dimensions in Fortran order')
    if (values.length !== size)
      throw this.#fail(`expected ${size} bytes for [${shape.join(', ')}], received ${values.length}`)
    target.shape = shape
    target.data = byColumns ? rowsFirst(values, shape) : values
  }

  #pop(): Pickled {
    const value = this.#top()
    this.#stack.pop()
    return value
  }

  #top(): Pickled {
    // Nothing below an open mark may be taken.
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw this.#fail('expected a value on the stack')
    return this.#stack.at(-1)!
  }

  #popToMark(): Pickled[] {
    const mark = this.#marks.pop()
    if (mark === undefined) throw this.#fail('expected a mark on the stack')
    return this.#stack.splice(mark)
  }

  #remembered(index: number): Pickled {
    const value = this.#memo.get(index)
    if (value === undefined) throw this.#fail(`expected a remembered value ${index}, received none`)
    return value
  }

  #uint8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  #uint32(): number {
    return this.#view.getUint32(this.#take(4), true)
  }

  #string(length: number): Uint8Array {
    const start = this.#take(length)
    return this.#bytes.subarray(start, start + length)
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at)
    const line = latin1(this.#string(Math.max(end, this.#at) - this.#at))
    this.#take(1)
    return line
  }

  /** Where the next `length` bytes begin; they count as read. */
  #take(length: number): number {
    const start = this.#at
    if (start + length > this.#bytes.length)
      throw new FoveaError(
        `${this.#file}: truncated pickle: expected ${length} bytes at byte ${start}, received ${this.#bytes.length - start}`,
      )
    this.#at += length
    return start
  }

  #fail(text: string): FoveaError {
    const opcode = this.#bytes[this.#start]!
    const sign = opcode > 0x20 && opcode < 0x7f ? ` (${String.fromCharCode(opcode)})` : ''
    const hex = opcode.toString(16).padStart(2, '0')
    return new FoveaError(`${this.#file}: pickle opcode ${hex}${sign} at byte ${this.#start}: ${text}`)
  }
}

function code(sign: string): number {
  return sign.charCodeAt(0)
}

function isShape(value: Pickled | undefined): value is number[] {
  return Array.isArray(value) && value.every(item => typeof item === 'number' && item >= 0)
}

/** The values of an array that is stored column after column (Fortran's order). */
function rowsFirst(values: Uint8Array, shape: readonly number[]): Uint8Array {
  const [rows, columns] = shape as [number, number]
  const out = new Uint8Array(values.length)
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++)
      out[row * columns + column] = values[column * rows + row]!
  }
  return out
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
