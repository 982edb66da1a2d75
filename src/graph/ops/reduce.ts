/** Ops that sum up, and matrix products. */
import { broadcastShapes, normalizeAxis } from '../../util/broadcast.ts'
import { UsageError } from '../../util/errors.ts'
import { hostTensor, type Shape, showShape, sizeOf, toNumbers } from '../../util/host-tensor.ts'
import { apply, applyAll, type Lowering, type OpDefinition, type Tensor } from '../node.ts'
import { cast, div, equal, exp, Mul, mul, sub } from './elementwise.ts'
import { expand, Reshape, reshape, sumTo, Transpose } from './shape.ts'
import { Constant, constant, constantValue, sameDType } from './source.ts'

interface ReduceAttributes {
  readonly axes: readonly number[]
}

/** The input's shape with each reduced axis kept as 1. */
function reducedShape(x: Tensor, { axes }: ReduceAttributes): number[] {
  return x.shape.map((extent, i) => (axes.includes(i) ? 1 : extent))
}

// sum over axes (kept as 1): dx = dy repeated
export const ReduceSum: OpDefinition = {
  op: 'ReduceSum',
  shape: ([x], attributes: ReduceAttributes) => ({ dtype: x!.dtype, shape: reducedShape(x!, attributes) }),
  gradient: ({ inputs: [x] }, [dy]) => [expand(dy!, x!.shape)],
  onnx(lowering, [x], { inputs, attributes, outputs }) {
    const { axes } = attributes as ReduceAttributes
    const { shape, dtype } = inputs[0]!
    const leading = axes.every((axis, i) => axis === i)
    const rows = sizeOf(shape.slice(0, axes.length))
    const columns = sizeOf(shape) / rows
    // A row of ones times the matrix: several times faster than ONNX Runtime's ReduceSum over leading axes.
    if (leading && dtype === 'float32' && columns > 1) {
      const ones = lowering.constant(hostTensor('float32', [1, rows], new Array<number>(rows).fill(1)))
      const sum = lowering.emit('MatMul', [ones, reshapeName(lowering, x!, shape, [rows, columns])])[0]!
      return reshapeName(lowering, sum, [1, columns], outputs[0]!.shape)
    }
    return lowering.emit('ReduceSum', [x!, lowering.ints(axes)], { keepdims: { int: 1 } })
  },
}

function reshapeName(lowering: Lowering, name: string, from: Shape, to: Shape): string {
  if (showShape(from) === showShape(to)) return name
  return lowering.emit('Reshape', [name, lowering.ints(to)])[0]!
}

/** The sum over `axes`, which stay as extents of 1. All axes where none are given. */
export function reduceSum(x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor {
  const sorted = axes.map(axis => normalizeAxis('ReduceSum', axis, x.shape.length)).sort((a, b) => a - b)
  const summed = sorted.filter(axis => x.shape[axis] !== 1)
  return summed.length === 0 ? x : apply(ReduceSum, [x], { axes: summed })
}

/** The mean over `axes`, which stay as extents of 1. All axes where none are given. */
export function reduceMean(x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor {
  const sum = reduceSum(x, axes)
  return mul(sum, sizeOf(sum.shape) / sizeOf(x.shape))
}

/** The sum of all values, a scalar. */
export function sumAll(x: Tensor): Tensor {
  return reshape(reduceSum(x), [])
}

// maximum over axes (kept as 1): dx = dy where x is the maximum, shared equally between ties
export const ReduceMax: OpDefinition = {
  op: 'ReduceMax',
  shape: ([x], attributes: ReduceAttributes) => ({ dtype: x!.dtype, shape: reducedShape(x!, attributes) }),
  gradient({ inputs: [x], outputs: [y], attributes }, [dy]) {
    const winners = cast(equal(x!, y!), x!.dtype)
    return [mul(winners, div(dy!, reduceSum(winners, attributes.axes)))]
  },
  onnx: (lowering, [x], { attributes }) =>
    lowering.emit('ReduceMax', [x!, lowering.ints(attributes.axes)], { keepdims: { int: 1 } }),
}

/** The maximum over `axes`, which stay as extents of 1. */
export function reduceMax(x: Tensor, axes: readonly number[]): Tensor {
  return apply(ReduceMax, [x], { axes: axes.map(axis => normalizeAxis('ReduceMax', axis, x.shape.length)) })
}

// index of the first maximum along the last axis
export const ArgMax: OpDefinition = {
  op: 'ArgMax',
  shape: ([x]) => ({ dtype: 'int64', shape: x!.shape.slice(0, -1) }),
  gradient: { none: 'an index is piecewise constant' },
  onnx: (lowering, inputs) => lowering.emit('ArgMax', inputs, { axis: { int: -1 }, keepdims: { int: 0 } }),
}

/** The index of the first maximum along the last axis, int64. */
export const argMax = (x: Tensor): Tensor => apply(ArgMax, [x])

// the k largest along the last axis, in descending order, and their indices: dx = dy scattered to where they
// stood
export const TopK: OpDefinition = {
  op: 'TopK',
  shape([x], { k }: { k: number }) {
    if (k < 1 || k > x!.shape.at(-1)!)
      throw new UsageError(
        `TopK: expected k between 1 and ${x!.shape.at(-1)}, received ${k} (input ${showShape(x!.shape)})`,
      )
    const shape = [...x!.shape.slice(0, -1), k]
    return [
      { dtype: x!.dtype, shape },
      { dtype: 'int64', shape },
    ]
  },
  gradient: { none: 'taken through a mask of the winners (see k-winners-take-all)' },
  onnx: (lowering, [x], { attributes }) =>
    lowering.emit('TopK', [x!, lowering.ints([attributes.k])], { axis: { int: -1 } }, { outputs: 2 }),
}

/** The `k` largest values along the last axis, in descending order. No gradient flows through them. */
export const topK = (x: Tensor, k: number): Tensor => applyAll(TopK, [x], { k })[0]!

// y_i = e^x_i / sum_j e^x_j (last axis): dx = (dy - sum_j dy_j y_j) y
export const Softmax: OpDefinition = {
  op: 'Softmax',
  shape: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  gradient: ({ outputs: [y] }, [dy]) => [mul(sub(dy!, reduceSum(mul(dy!, y!), [-1])), y!)],
  onnx: (lowering, inputs) => lowering.emit('Softmax', inputs, { axis: { int: -1 } }),
}

export const softmax = (x: Tensor): Tensor => apply(Softmax, [x])

// y_i = x_i - ln sum_j e^x_j (last axis): dx = dy - e^y sum_j dy_j
export const LogSoftmax: OpDefinition = {
  op: 'LogSoftmax',
  shape: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
  gradient: ({ outputs: [y] }, [dy]) => [sub(dy!, mul(exp(y!), reduceSum(dy!, [-1])))],
  onnx: (lowering, inputs) => lowering.emit('LogSoftmax', inputs, { axis: { int: -1 } }),
}

export const logSoftmax = (x: Tensor): Tensor => apply(LogSoftmax, [x])

interface MatMulAttributes {
  readonly transA: boolean
  readonly transB: boolean
  readonly scale: number
  readonly again: boolean
}

// scale op(a) op(b) over the last two axes, op the transpose where asked; leading axes broadcast.
// c = s a b: da = s dc b', db = s a' dc; with transposes the same with the roles turned
export const MatMul: OpDefinition = {
  op: 'MatMul',
  shape([a, b], { transA, transB }: MatMulAttributes) {
    const [m, k] = matrix(a!, transA)
    const [k2, n] = matrix(b!, transB)
    if (k !== k2)
      throw new UsageError(
        `MatMul: ${showShape(a!.shape)}${transA ? "'" : ''} and ${showShape(b!.shape)}${transB ? "'" : ''} do not match`,
      )
    const batch = broadcastShapes('MatMul', a!.shape.slice(0, -2), b!.shape.slice(0, -2))
    return { dtype: sameDType('MatMul', [a!, b!]), shape: [...batch, m, n] }
  },
  gradient({ inputs: [a, b], attributes: { transA, transB, scale } }, [dc]) {
    const da = transA
      ? matMul(b!, dc!, { transA: transB, transB: true, scale })
      : matMul(dc!, b!, { transB: !transB, scale })
    const [rows, results] = isFlatGradient(a!, b!, transA) ? [a!, dc!].map(matrixOfRows) : [a!, dc!]
    const db = transB
      ? matMul(results!, rows!, { transA: true, transB: transA, scale })
      : matMul(rows!, results!, { transA: !transA, scale })
    return [sumTo(da, a!.shape), sumTo(db, b!.shape)]
  },
  onnx(lowering, [a, b], { inputs, attributes }) {
    const { transA, transB, scale, again } = attributes as MatMulAttributes
    const { dtype } = inputs[0]!
    // A factor of the product itself is float32, and part of no layer to those who read weights of dense ones.
    const isApart = scale !== 1 && (lowering.portable || dtype !== 'float32')
    const factor = () => lowering.constant(hostTensor(dtype, [], [scale]))
    const left = isApart ? lowering.emit('Mul', [a!, factor()])[0]! : a!
    const alpha = isApart ? 1 : scale
    if (!transA && !transB && alpha === 1 && !again) return lowering.emit('MatMul', [left, b!])
    const flags = {
      transA: { int: Number(transA) },
      transB: { int: Number(transB) },
      ...(alpha === 1 ? {} : { alpha: { float: alpha } }),
    }
    if (inputs.every(({ shape }) => shape.length === 2) && !again)
      return lowering.emit('Gemm', [left, b!], flags)
    // What is said by default makes it another node to those who join equal ones.
    const own = again ? { ...flags, transBatchA: { int: 0 } } : flags
    return lowering.emit('FusedMatMul', [left, b!], own, { domain: 'com.microsoft' })
  },
}

/**
 * Whether one product over all rows of `a` is the better gradient of the matrix `b`: by leading axes there would be as
 * many matrices to write, and to add up, as those have places. Where they are small beside what they are made of, that
 * costs little, and each can be made where its rows lie.
 */
function isFlatGradient(a: Tensor, b: Tensor, transA: boolean): boolean {
  if (transA || a.shape.length === 2 || b.shape.length !== 2) return false
  const [n, m] = b.shape as unknown as readonly [number, number]
  return n * m > a.shape.at(-2)! * (n + m)
}

/** [..., K] as [rows, K]. */
const matrixOfRows = (x: Tensor): Tensor => reshape(x, [-1, x.shape.at(-1)!])

function matrix(x: Tensor, transposed: boolean): [number, number] {
  if (x.shape.length < 2) throw new UsageError(`MatMul: expected a matrix, received ${showShape(x.shape)}`)
  const [rows, columns] = x.shape.slice(-2) as [number, number]
  return transposed ? [columns, rows] : [rows, columns]
}

export interface MatMulOptions {
  readonly transA?: boolean
  readonly transB?: boolean
  /** Default: 1. */
  readonly scale?: number
  /** Whether it is to be computed even where an equal product has been, which then need not be kept. */
  readonly again?: boolean
}

/** The matrix product over the last two axes; to transpose either factor, and to scale, costs nothing. */
export function matMul(a: Tensor, b: Tensor, options: MatMulOptions = {}): Tensor {
  const { transA = false, transB = false, scale = 1, again = false } = options
  // ONNX Runtime copies a left matrix that is to be transposed once for each 128 columns of the right one.
  const left = transA ? turnedConstant(a) : undefined
  if (left) return matMul(left, b, { ...options, transA: false })
  const turned = turnedMatrix(b)
  if (turned) return matMul(a, turned, { ...options, transB: !transB })
  const plain = withoutFactor(a)
  if (plain) return matMul(plain.x, b, { ...options, scale: scale * plain.factor })
  return apply(MatMul, [a, b], { transA, transB, scale, again })
}

/** The transpose of a constant matrix; undefined: `x` is none. */
function turnedConstant(x: Tensor): Tensor | undefined {
  if (x.node.op !== Constant || x.shape.length !== 2) return undefined
  const [rows, columns] = x.shape as [number, number]
  const values = toNumbers(x.node.attributes.value)
  const turned = values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!)
  return constant(hostTensor(x.dtype, [columns, rows], turned))
}

/** What `x` is a multiple of, if it is one. */
function withoutFactor(x: Tensor): { x: Tensor; factor: number } | undefined {
  const { op, inputs } = x.node
  if (x.dtype !== 'float32') return undefined
  if (op === Reshape) {
    const before = withoutFactor(inputs[0]!)
    return before && { ...before, x: reshape(before.x, x.shape) }
  }
  if (op !== Mul) return undefined
  const at = inputs.findIndex(input => input.shape.length === 0)
  const factor = at < 0 ? undefined : constantValue(inputs[at]!)
  return factor === undefined ? undefined : { x: inputs[1 - at]!, factor }
}

/** The matrix of which `x` is the transpose, if it is one. */
function turnedMatrix(x: Tensor): Tensor | undefined {
  return x.node.op === Transpose && x.shape.length === 2 ? x.node.inputs[0] : undefined
}
