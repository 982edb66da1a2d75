/** Kernels: element-by-element updates, as functions of a WebAssembly module. */
import type { OnnxNode } from '../../onnx/model.ts'
import { MOST_PAGES } from './memory.ts'

export type Operand =
  /** A tensor of the kernel's size: a state, or a value of the step. */
  | { readonly tensor: string }
  /** A value or state of one element. */
  | { readonly scalar: string }
  | { readonly constant: number }
  /** The result of an earlier step of the kernel. */
  | { readonly step: number }

export interface KernelStep {
  /** ONNX's name of the operator. */
  readonly op: string
  readonly operands: readonly Operand[]
}

/** One pass over tensors of `size` float32 values. */
export interface Kernel {
  readonly name: string
  readonly size: number
  readonly steps: readonly KernelStep[]
  /** States that take the result of a step. */
  readonly stores: readonly { readonly state: string; readonly step: number }[]
}

/** Bytes that a pass takes at once; tensors fill whole multiples of it. */
export const VECTOR_BYTES = 16

/** Elementwise operators of ONNX: how few and how many operands they take, and their opcodes after `SIMD`. */
const operators: Readonly<Record<string, readonly [number, number, ...number[]]>> = {
  Add: [2, 2, 0xe4, 0x01],
  Sub: [2, 2, 0xe5, 0x01],
  Mul: [2, 2, 0xe6, 0x01],
  Div: [2, 2, 0xe7, 0x01],
  Min: [1, Infinity, 0xe8, 0x01],
  Max: [1, Infinity, 0xe9, 0x01],
  Abs: [1, 1, 0xe0, 0x01],
  Neg: [1, 1, 0xe1, 0x01],
  Sqrt: [1, 1, 0xe3, 0x01],
}

/** Operators that are one or two of those. The shape that `Reshape` is given is no operand. */
const rewritten: Readonly<Record<string, readonly [number, number]>> = {
  Identity: [1, 1],
  Reshape: [1, 2],
  Relu: [1, 1],
  Clip: [3, 3],
}

/** Whether a kernel can compute the node, as far as its operator goes. */
export function isElementwise({ op, inputs }: OnnxNode): boolean {
  const operator = operators[op] ?? rewritten[op]
  if (!operator) return false
  const [least, most] = operator
  return inputs.length >= least && inputs.length <= most && !inputs.includes('')
}

/** The steps that compute a node, the first of which becomes the kernel's step `at`. */
export function stepsOf({ op }: OnnxNode, operands: readonly Operand[], at: number): KernelStep[] {
  const [x, least, most] = operands
  if (op === 'Relu') return [{ op: 'Max', operands: [x!, { constant: 0 }] }]
  if (op !== 'Clip') return [{ op, operands }]
  return [
    { op: 'Max', operands: [x!, least!] },
    { op: 'Min', operands: [{ step: at }, most!] },
  ]
}

/** The tensors and scalars that a kernel reads. */
export function namesReadBy({ steps }: Kernel): string[] {
  const names = steps
    .flatMap(step => step.operands)
    .flatMap(operand => ('tensor' in operand ? operand.tensor : 'scalar' in operand ? operand.scalar : []))
  return [...new Set(names)]
}

// Opcodes and types, by the WebAssembly specification, section 5 (binary format).
const SIMD = 0xfd
const [I32, V128, FUNCTION] = [0x7f, 0x7b, 0x60]
const [LOAD, LOAD_SPLAT, STORE, SPLAT, LESS, AND, ANDNOT] = [0x00, 0x09, 0x0b, 0x13, 0x43, 0x4e, 0x4f]
const [LOCAL_GET, LOCAL_SET, LOOP, IF, END, BRANCH_IF] = [0x20, 0x21, 0x03, 0x04, 0x0b, 0x0d]
const [I32_CONST, F32_CONST, I32_ADD, I32_LESS] = [0x41, 0x43, 0x6a, 0x49]
const ABS = operators.Abs!.slice(2)
const NO_RESULT = 0x40

/** The least normal number: kernels write zero for what is smaller, as ONNX Runtime is asked to. */
const LEAST_NORMAL = 2 ** -126

/**
 * A module with the functions `0`, `1`, ..., one for each kernel: `(from, to)` are offsets in bytes of its tensors,
 * whole multiples of {@link VECTOR_BYTES}. It imports a shared memory of up to 4 GiB as `host.memory`.
 *
 * @param addressOf where a tensor or scalar lies in the memory
 */
export function kernelModule(
  kernels: readonly Kernel[],
  addressOf: (name: string) => number,
): Uint8Array<ArrayBuffer> {
  const bodies = kernels.map(kernel => sized(bodyOf(kernel, addressOf)))
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...section(1, vector([[FUNCTION, ...vector([[I32], [I32]]), ...vector([])]])),
    ...section(2, vector([[...text('host'), ...text('memory'), 2, 3, 1, ...unsigned(MOST_PAGES)]])),
    ...section(3, vector(kernels.map(() => [0]))),
    ...section(7, vector(kernels.map((_, i) => [...text(String(i)), 0, ...unsigned(i)]))),
    ...section(10, vector(bodies)),
  ])
}

/** Locals: from, to, the flush threshold, then scalars and constants, then the results of steps. */
function bodyOf({ steps, stores }: Kernel, addressOf: (name: string) => number): number[] {
  const [FROM, TO, LEAST] = [0, 1, 2]
  const fixed = new Map<string, number[]>()
  for (const operand of steps.flatMap(step => step.operands)) {
    if ('scalar' in operand)
      fixed.set(keyOf(operand), [I32_CONST, 0, SIMD, LOAD_SPLAT, 2, ...unsigned(addressOf(operand.scalar))])
    else if ('constant' in operand) fixed.set(keyOf(operand), constant(operand.constant))
  }
  const places = new Map([...fixed.keys()].map((key, i) => [key, LEAST + 1 + i]))
  const firstStep = LEAST + 1 + fixed.size
  const address = (name: string) => [4, ...unsigned(addressOf(name))]
  const push = (operand: Operand): number[] => {
    if ('step' in operand) return [LOCAL_GET, ...unsigned(firstStep + operand.step)]
    if ('tensor' in operand) return [LOCAL_GET, FROM, SIMD, LOAD, ...address(operand.tensor)]
    return [LOCAL_GET, ...unsigned(places.get(keyOf(operand))!)]
  }
  const compute = ({ op, operands }: KernelStep, i: number): number[] => {
    const [, , ...opcode] = operators[op] ?? []
    const apply = opcode.length > 0 ? [SIMD, ...opcode] : []
    const [first, ...others] = operands.map(push) as [number[], ...number[][]]
    const isUnary = operators[op]?.[1] === 1
    const value = [...first, ...(isUnary ? apply : others.flatMap(other => [...other, ...apply]))]
    return [...value, LOCAL_SET, ...unsigned(firstStep + i)]
  }
  const store = ({ state, step }: Kernel['stores'][number]): number[] => {
    const value = push({ step })
    const magnitude = [...value, SIMD, ...ABS]
    // All bits of |x| where |x| < least: zero keeps its sign, and NaN, which is not less, stays.
    const tiny = [...magnitude, ...magnitude, LOCAL_GET, LEAST, SIMD, LESS, SIMD, AND]
    return [LOCAL_GET, FROM, ...value, ...tiny, SIMD, ANDNOT, SIMD, STORE, ...address(state)]
  }
  const isLeft = [LOCAL_GET, FROM, LOCAL_GET, TO, I32_LESS]
  return [
    ...vector([[...unsigned(1 + fixed.size + steps.length), V128]]),
    ...[...constant(LEAST_NORMAL), LOCAL_SET, LEAST],
    ...[...fixed].flatMap(([key, code]) => [...code, LOCAL_SET, ...unsigned(places.get(key)!)]),
    ...[...isLeft, IF, NO_RESULT, LOOP, NO_RESULT],
    ...steps.flatMap(compute),
    ...stores.flatMap(store),
    ...[LOCAL_GET, FROM, I32_CONST, VECTOR_BYTES, I32_ADD, LOCAL_SET, FROM],
    ...[...isLeft, BRANCH_IF, 0, END, END, END],
  ]
}

const keyOf = (operand: { readonly scalar: string } | { readonly constant: number }): string =>
  'scalar' in operand ? `scalar ${operand.scalar}` : `constant ${constant(operand.constant)}`

/** Four times a number. */
const constant = (value: number): number[] => [
  F32_CONST,
  ...new Uint8Array(Float32Array.of(value).buffer),
  SIMD,
  SPLAT,
]

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

const vector = (items: readonly (readonly number[])[]): number[] => [
  ...unsigned(items.length),
  ...items.flat(),
]
const sized = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes]
const section = (id: number, content: readonly number[]): number[] => [id, ...sized(content)]
const text = (value: string): number[] => sized([...new TextEncoder().encode(value)])
