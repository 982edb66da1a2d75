/** Kernels: what is computed in one pass over memory, as loops around a few operations on four values each. */
import { floatOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import type { Access } from './access.ts'

export type Operand =
  | { readonly tensor: string; readonly at: Access }
  | { readonly constant: number }
  /** The result of an earlier step of the kernel. */
  | { readonly step: number }

export interface KernelStep {
  readonly op: Operation
  readonly operands: readonly Operand[]
}

export interface KernelResult {
  readonly tensor: string
  readonly at: Access
  readonly step: number
}

export interface Kernel {
  readonly name: string
  /** Extents, outermost first; threads share the turns of the outermost. */
  readonly loops: readonly number[]
  readonly steps: readonly KernelStep[]
  /** Written in each turn of the innermost loop. */
  readonly stores: readonly KernelResult[]
  /** Summed up over the innermost loops, with which no place of a sum varies, and then written. */
  readonly sums: readonly KernelResult[]
  /**
   * Whether it writes what it reads: then it first reads all. What stays from step to step may become too small to
   * be a normal number, which would slow all down: zeros are written in its place.
   */
  readonly updates: boolean
}

/** Operators of ONNX that kernels have themselves: how few and how many operands they take. */
const operators = {
  Add: [2, 2],
  Sub: [2, 2],
  Mul: [2, 2],
  Div: [2, 2],
  Min: [1, Infinity],
  Max: [1, Infinity],
  Abs: [1, 1],
  Neg: [1, 1],
  Sqrt: [1, 1],
} as const

/**
 * Those, and of their own: `Positive` is 1 where the operand is above 0, else 0; `MultiplyAdd` is the first operand
 * times the second, plus the third, rounded once where the processor can, else twice. `LowValues` takes the first two
 * values of both operands in turns, `HighValues` the last two; `LowPairs` takes the first two of one operand, then of
 * the other, `HighPairs` the last two.
 */
export type Operation = keyof typeof operators | OwnOperation
type OwnOperation = 'Identity' | 'Relu' | 'Positive' | 'MultiplyAdd' | Shuffle
type Shuffle = 'LowValues' | 'HighValues' | 'LowPairs' | 'HighPairs'

/** Operators that are some of those. The shape that `Reshape` is given is no operand. */
const rewritten: Readonly<Record<string, readonly [number, number]>> = {
  Identity: [1, 1],
  Reshape: [1, 2],
  Relu: [1, 1],
  LeakyRelu: [1, 1],
  Clip: [2, 3],
  Reciprocal: [1, 1],
  HardSigmoid: [1, 1],
}

/** Of LeakyRelu, by default. */
const SLOPE = 0.01

/** Whether a kernel can compute the node, as far as its operator goes. */
export function isElementwise({ op, inputs, attributes }: OnnxNode): boolean {
  const operator = op in operators ? operators[op as keyof typeof operators] : rewritten[op]
  if (!operator) return false
  const [least, most] = operator
  // The larger of x and alpha x, but for other slopes; and 0 times infinity is no number.
  const isSloped = op !== 'LeakyRelu' || isSlope(floatOf(attributes.alpha, SLOPE))
  return isSloped && inputs.length >= least && inputs.length <= most && !inputs.includes('')
}

const isSlope = (alpha: number): boolean => alpha > 0 && alpha <= 1

/** What a kernel computes a node with: not the shape that a `Reshape` is given. */
export function operandsOf({ op, inputs }: OnnxNode): readonly string[] {
  return op === 'Reshape' ? inputs.slice(0, 1) : inputs
}

/** The steps that compute a node, the first of which becomes the kernel's step `at`. */
export function stepsOf(
  { op, attributes }: OnnxNode,
  operands: readonly Operand[],
  at: number,
): KernelStep[] {
  const [x, least, most] = operands
  switch (op) {
    case 'Reciprocal':
      return [{ op: 'Div', operands: [{ constant: 1 }, x!] }]
    case 'Clip':
      return [
        { op: 'Max', operands: [x!, least!] },
        ...(most ? [{ op: 'Min' as const, operands: [{ step: at }, most] }] : []),
      ]
    case 'LeakyRelu':
      return [
        { op: 'Mul', operands: [x!, { constant: floatOf(attributes.alpha, SLOPE) }] },
        { op: 'Max', operands: [x!, { step: at }] },
      ]
    case 'HardSigmoid':
      return hardSigmoidSteps(x!, floatOf(attributes.alpha, 0.2), floatOf(attributes.beta, 0.5), at)
    case 'Reshape':
      return [{ op: 'Identity', operands }]
    default:
      return [{ op: op as Operation, operands }]
  }
}

/** A slope of all but infinity makes it the step function: whatever is normal and above 0 becomes 1. */
const STEEP = 2 ** 127

function hardSigmoidSteps(x: Operand, alpha: number, beta: number, at: number): KernelStep[] {
  if (alpha >= STEEP && beta === 0) return [{ op: 'Positive', operands: [x] }]
  return [
    { op: 'Mul', operands: [x, { constant: alpha }] },
    { op: 'Add', operands: [{ step: at }, { constant: beta }] },
    { op: 'Min', operands: [{ step: at + 1 }, { constant: 1 }] },
    { op: 'Max', operands: [{ step: at + 2 }, { constant: 0 }] },
  ]
}
