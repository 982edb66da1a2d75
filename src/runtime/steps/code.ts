/** The WebAssembly of kernels, by the WebAssembly specification, section 5 (binary format). */
import type { Access } from './access.ts'
import type { Kernel, KernelResult, KernelStep, Operand, Operation } from './kernel.ts'
import { MOST_PAGES } from './memory.ts'

const [I32, V128, FUNCTION] = [0x7f, 0x7b, 0x60]
const [LOCAL_GET, LOCAL_SET, LOOP, IF, END, BRANCH_IF] = [0x20, 0x21, 0x03, 0x04, 0x0b, 0x0d]
const [I32_CONST, F32_CONST, I32_ADD, I32_MULTIPLY, I32_LESS] = [0x41, 0x43, 0x6a, 0x6c, 0x49]
const NO_RESULT = 0x40
const [LOAD, LOAD_SPLAT, STORE, SPLAT] = [0x00, 0x09, 0x0b, 0x13]

/** Opcodes of 128-bit vectors follow this one. */
const SIMD = 0xfd
const simd = (opcode: number): number[] => [SIMD, ...unsigned(opcode)]
const [LESS, GREATER, AND, ANDNOT, ABS] = [0x43, 0x44, 0x4e, 0x4f, 0xe0]
const [SHUFFLE, PSEUDO_MAX] = [0x0d, 0xeb]

/** What follows the operands of an operation; between each two, where it takes any number of them. */
const opcodes: Readonly<Record<Operation, number[]>> = {
  Add: simd(0xe4),
  Sub: simd(0xe5),
  Mul: simd(0xe6),
  Div: simd(0xe7),
  Min: simd(0xe8),
  Max: simd(0xe9),
  Abs: simd(ABS),
  Neg: simd(0xe1),
  Sqrt: simd(0xe3),
  Identity: [],
  // Unlike `Max`, one instruction; NaN stays.
  Relu: [...splat(0), ...simd(PSEUDO_MAX)],
  Positive: [...splat(0), ...simd(GREATER), ...splat(1), ...simd(AND)],
  // Relaxed: the processor's own fused operation.
  MultiplyAdd: simd(0x105),
  LowValues: shuffle(0, 4, 1, 5),
  HighValues: shuffle(2, 6, 3, 7),
  LowPairs: shuffle(0, 1, 4, 5),
  HighPairs: shuffle(2, 3, 6, 7),
}

/** Operations of any number of operands, two at a time. */
const repeated: ReadonlySet<Operation> = new Set(['Min', 'Max'])

const LEAST_NORMAL = 2 ** -126

/**
 * Whether this thread, as ONNX Runtime asks its processor to, computes with zeros for numbers too small to be normal,
 * and with it the threads that it begins.
 */
export function flushesDenormals(): boolean {
  const smaller = Float32Array.of(LEAST_NORMAL)
  smaller[0]! /= 2
  // Windows gives new threads a state of their own.
  return smaller[0] === 0 && process.platform !== 'win32'
}

/**
 * A module with the functions `0`, `1`, ..., one for each kernel: `(from, to)` are turns of its outermost loop.
 * It imports a shared memory of up to 4 GiB as `host.memory`.
 *
 * @param addressOf where a tensor lies in the memory
 * @param mustFlush whether updates are to write +0 for what is too small to be normal: where {@link flushesDenormals} is false
 */
export function kernelModule(
  kernels: readonly Kernel[],
  addressOf: (name: string) => number,
  mustFlush: boolean,
): Uint8Array<ArrayBuffer> {
  const bodies = kernels.map(kernel => Uint8Array.from(new KernelCode(kernel, addressOf, mustFlush).body()))
  const parts = bodies.flatMap(body => [Uint8Array.from(unsigned(body.length)), body])
  const count = unsigned(bodies.length)
  const length = parts.reduce((sum, part) => sum + part.length, count.length)
  const head = Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector([[FUNCTION, ...vector([[I32], [I32]]), ...vector([])]])),
    ...section(2, vector([[...text('host'), ...text('memory'), 2, 3, 1, ...unsigned(MOST_PAGES)]])),
    ...section(3, vector(kernels.map(() => [0]))),
    ...section(7, vector(kernels.map((_, i) => [...text(String(i)), 0, ...unsigned(i)]))),
    ...[10, ...unsigned(length), ...count],
  ])
  return joined([head, ...parts])
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

const [FROM, TO] = [0, 1]
const ARGUMENTS = 2

/** The function of one kernel. Each set of strides has a pointer for each loop. */
class KernelCode {
  readonly #kernel: Kernel
  readonly #addressOf: (name: string) => number
  readonly #mustFlush: boolean
  readonly #depth: number
  /** The strides of accesses, without those that are none. */
  readonly #strides: readonly (readonly number[])[]
  readonly #sets: ReadonlyMap<string, number>
  /** Of what is the same in every turn and has a local: constants and values in memory. */
  readonly #fixed = new Map<string, { readonly local: number; readonly operand: Fixed }>()
  /** Steps of nothing else are computed once. */
  readonly #fixedSteps = new Set<number>()
  /** Sums are taken over this loop and those in it. */
  readonly #summedLevel: number
  readonly #code: number[] = []

  constructor(kernel: Kernel, addressOf: (name: string) => number, mustFlush: boolean) {
    const { loops, steps, stores, sums } = kernel
    this.#kernel = kernel
    this.#addressOf = addressOf
    this.#mustFlush = mustFlush
    this.#depth = loops.length
    const accesses = [
      ...steps.flatMap(({ operands }) => operands.flatMap(o => ('tensor' in o ? o.at : []))),
      ...[...stores, ...sums].map(({ at }) => at),
    ]
    const strides = new Map(accesses.map(at => [at.strides.join(), at.strides]))
    this.#strides = [...strides.values()].filter(set => set.some(stride => stride !== 0))
    this.#sets = new Map(this.#strides.map((set, i) => [set.join(), i]))
    this.#summedLevel =
      1 + Math.max(...sums.map(({ at }) => at.strides.findLastIndex(stride => stride !== 0)))
    for (const [i, { operands }] of steps.entries()) {
      for (const operand of operands) if (!('step' in operand) && isFixed(operand)) this.#fix(operand)
      if (operands.every(o => ('step' in o ? this.#fixedSteps.has(o.step) : isFixed(o))))
        this.#fixedSteps.add(i)
    }
  }

  #fix(operand: Fixed): void {
    const key = keyOf(operand)
    if (!this.#fixed.has(key)) this.#fixed.set(key, { local: this.#least + 1 + this.#fixed.size, operand })
  }

  body(): readonly number[] {
    const { steps, sums } = this.#kernel
    const code = this.#code
    const integers = this.#depth * (1 + this.#strides.length)
    const vectors = 1 + this.#fixed.size + steps.length + sums.length
    code.push(2, ...unsigned(integers), I32, ...unsigned(vectors), V128)
    code.push(...splat(LEAST_NORMAL))
    this.#set(this.#least)
    for (const { local, operand } of this.#fixed.values()) {
      if ('tensor' in operand) this.#load(operand)
      else if ('constant' in operand) code.push(...splat(operand.constant))
      this.#set(local)
    }
    for (const [i, step] of steps.entries()) if (this.#fixedSteps.has(i)) this.#compute(step, i)
    this.#get(FROM)
    this.#set(this.#counter(0))
    for (const [i, strides] of this.#strides.entries()) {
      this.#get(FROM)
      code.push(I32_CONST, ...signed(4 * strides[0]!), I32_MULTIPLY)
      this.#set(this.#pointer(i, 0))
    }
    this.#get(this.#counter(0))
    this.#get(TO)
    code.push(I32_LESS, IF, NO_RESULT)
    this.#loop(0)
    code.push(END, END)
    return code
  }

  #loop(level: number): void {
    const code = this.#code
    const { loops } = this.#kernel
    const sums = level === this.#summedLevel ? this.#kernel.sums : []
    for (const i of sums.keys()) {
      code.push(...splat(0))
      this.#set(this.#sum(i))
    }
    code.push(LOOP, NO_RESULT)
    if (level === this.#depth - 1) this.#turn()
    else this.#inner(level + 1)
    for (const [i, strides] of this.#strides.entries())
      if (strides[level] !== 0) this.#increase(this.#pointer(i, level), 4 * strides[level]!)
    this.#increase(this.#counter(level), 1)
    this.#get(this.#counter(level))
    if (level === 0) this.#get(TO)
    else code.push(I32_CONST, ...signed(loops[level]!))
    code.push(I32_LESS, BRANCH_IF, 0, END)
    for (const [i, result] of sums.entries()) this.#store(result, () => this.#get(this.#sum(i)))
  }

  #inner(level: number): void {
    this.#code.push(I32_CONST, 0)
    this.#set(this.#counter(level))
    for (const i of this.#strides.keys()) {
      this.#get(this.#pointer(i, level - 1))
      this.#set(this.#pointer(i, level))
    }
    this.#loop(level)
  }

  #turn(): void {
    const { steps, stores, sums, updates } = this.#kernel
    const after = Map.groupBy(stores, ({ step }) => step)
    for (const [i, step] of steps.entries()) {
      if (!this.#fixedSteps.has(i)) this.#compute(step, i)
      // At once: registers are few.
      if (!updates)
        for (const result of after.get(i) ?? []) this.#store(result, () => this.#get(this.#step(i)))
    }
    if (updates)
      for (const result of stores) this.#store(result, () => this.#flushed(this.#step(result.step)))
    for (const [i, { step }] of sums.entries()) {
      this.#get(this.#sum(i))
      this.#get(this.#step(step))
      this.#code.push(...opcodes.Add)
      this.#set(this.#sum(i))
    }
  }

  #compute({ op, operands }: KernelStep, i: number): void {
    for (const [at, operand] of operands.entries()) {
      this.#push(operand)
      if (at > 0 && repeated.has(op)) this.#code.push(...opcodes[op])
    }
    if (!repeated.has(op)) this.#code.push(...opcodes[op])
    this.#set(this.#step(i))
  }

  #push(operand: Operand): void {
    if ('step' in operand) this.#get(this.#step(operand.step))
    else if (isFixed(operand)) this.#get(this.#fixed.get(keyOf(operand))!.local)
    else if ('tensor' in operand) this.#load(operand)
  }

  #load({ tensor, at }: Place): void {
    this.#base(at)
    this.#code.push(SIMD, ...(at.lanes === 0 ? [LOAD_SPLAT, 2] : [LOAD, 4]))
    this.#code.push(...unsigned(this.#addressOf(tensor) + 4 * at.offset))
  }

  #store({ tensor, at }: KernelResult, value: () => void): void {
    this.#base(at)
    value()
    this.#code.push(SIMD, STORE, 4, ...unsigned(this.#addressOf(tensor) + 4 * at.offset))
  }

  /** x; where that is to be, +0 if |x| is less than the least normal number. NaN stays. */
  #flushed(local: number): void {
    this.#get(local)
    if (!this.#mustFlush) return
    this.#get(local)
    this.#code.push(...simd(ABS))
    this.#get(this.#least)
    this.#code.push(...simd(LESS), ...simd(ANDNOT))
  }

  /** The innermost pointer of an access: what its strides add up to. */
  #base({ strides }: Access): void {
    const set = this.#sets.get(strides.join())
    if (set === undefined) this.#code.push(I32_CONST, 0)
    else this.#get(this.#pointer(set, this.#depth - 1))
  }

  #get(local: number): void {
    this.#code.push(LOCAL_GET, ...unsigned(local))
  }

  #set(local: number): void {
    this.#code.push(LOCAL_SET, ...unsigned(local))
  }

  #increase(local: number, by: number): void {
    this.#get(local)
    this.#code.push(I32_CONST, ...signed(by), I32_ADD)
    this.#set(local)
  }

  // Locals: the arguments, counters, pointers, the least normal number, what is fixed, steps, sums.
  #counter = (level: number): number => ARGUMENTS + level
  #pointer = (set: number, level: number): number => ARGUMENTS + this.#depth * (1 + set) + level
  get #least(): number {
    return ARGUMENTS + this.#depth * (1 + this.#strides.length)
  }
  #step = (i: number): number => this.#least + 1 + this.#fixed.size + i
  #sum = (i: number): number => this.#step(this.#kernel.steps.length) + i
}

interface Place {
  readonly tensor: string
  readonly at: Access
}

/** What may be the same in every turn. */
type Fixed = Exclude<Operand, { readonly step: number }>

/** Whether it is. */
const isFixed = (operand: Fixed): boolean =>
  'constant' in operand || operand.at.strides.every(stride => stride === 0)

/** Of what has no loop in it. */
function keyOf(operand: Fixed): string {
  if ('tensor' in operand) return `${operand.at.offset} ${operand.at.lanes} ${operand.tensor}`
  return Object.is(operand.constant, -0) ? '-0' : String(operand.constant)
}

/** Four times a number. */
function splat(value: number): number[] {
  return [F32_CONST, ...new Uint8Array(Float32Array.of(value).buffer), ...simd(SPLAT)]
}

/** These values of two vectors, the second's after the first's. */
function shuffle(...values: readonly number[]): number[] {
  return [...simd(SHUFFLE), ...values.flatMap(value => [0, 1, 2, 3].map(byte => 4 * value + byte))]
}

/** LEB128. */
function unsigned(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  do {
    const low = rest % 128
    rest = Math.floor(rest / 128)
    bytes.push(rest > 0 ? low + 128 : low)
  } while (rest > 0)
  return bytes
}

/** LEB128 of an int32. */
function signed(value: number): number[] {
  const bytes: number[] = []
  for (let rest = value | 0; ; rest >>= 7) {
    const low = rest & 127
    const isLast = rest >> 7 === (low & 64 ? -1 : 0)
    bytes.push(isLast ? low : low | 128)
    if (isLast) return bytes
  }
}

const vector = (items: readonly (readonly number[])[]): number[] => [
  ...unsigned(items.length),
  ...items.flat(),
]
const sized = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes]
const section = (id: number, content: readonly number[]): number[] => [id, ...sized(content)]
const text = (value: string): number[] => sized([...new TextEncoder().encode(value)])
