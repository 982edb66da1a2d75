/** Ops on each element by itself. In comments: y = f(x), and dx as a function of dy, x and y. */
import { elementTypes } from '../../onnx/schema.ts'
import { broadcastShapes } from '../../util/broadcast.ts'
import { checkRange, UsageError } from '../../util/errors.ts'
import { type DType, hostTensor, sizeOf } from '../../util/host-tensor.ts'
import {
  apply,
  type GradientRule,
  type Lowering,
  type NoGradient,
  type OpDefinition,
  type Tensor,
} from '../node.ts'
import { expand, repeatedNumber, sumTo, zerosLike } from './shape.ts'
import { Constant, constantValue, filled, sameDType, scalar } from './source.ts'

type Pair = readonly [Tensor | undefined, Tensor | undefined]

/** An op of two tensors that broadcast; `gradient` may answer in the broadcast shape. */
function binary(
  op: string,
  gradient: ((dy: Tensor, a: Tensor, b: Tensor, y: Tensor) => Pair) | NoGradient,
): OpDefinition {
  const rule: GradientRule | NoGradient =
    'none' in gradient
      ? gradient
      : ({ inputs: [a, b], outputs: [y] }, [dy]) => {
          const [da, db] = gradient(dy!, a!, b!, y!)
          return [da && sumTo(da, a!.shape), db && sumTo(db, b!.shape)]
        }
  return {
    op,
    shape: ([a, b]) => ({ dtype: sameDType(op, [a!, b!]), shape: broadcastShapes(op, a!.shape, b!.shape) }),
    gradient: rule,
    onnx: (lowering, names, { inputs, outputs }) =>
      inLongRows(lowering, op, names, inputs, outputs[0]!) ??
      lowering.emit(
        op,
        names.map((name, i) => sameRank(lowering, name, inputs[i]!, inputs[1 - i]!)),
      ),
  }
}

/** Values of a row from which on ONNX Runtime's loop over rows costs nothing. */
const LONG_ROW = 2048
/** Values from which on it pays to repeat a vector first. */
const MANY_VALUES = 2 ** 16

/**
 * A tensor [..., C] and a vector of its last axis: ONNX Runtime takes one row after the other, and short rows
 * several times as long. So the vector is repeated, and meets many rows at once.
 */
function inLongRows(
  lowering: Lowering,
  op: string,
  names: readonly string[],
  inputs: readonly Tensor[],
  y: Tensor,
): string[] | undefined {
  if (lowering.portable) return undefined
  const columns = y.shape.at(-1)!
  const at = inputs.findIndex(x => sizeOf(x.shape) === columns && x.shape.at(-1) === columns)
  const rows = sizeOf(y.shape) / columns
  if (
    at < 0 ||
    columns < 2 ||
    sizeOf(y.shape) < MANY_VALUES ||
    sizeOf(inputs[1 - at]!.shape) !== sizeOf(y.shape)
  )
    return undefined
  const times = largestDivisor(rows, LONG_ROW / columns)
  if (times < 2) return undefined
  const vector = lowering.emit('Reshape', [names[at]!, lowering.ints([1, columns])])[0]!
  const repeated = lowering.emit('Tile', [vector, lowering.ints([1, times])])[0]!
  const maps = lowering.emit('Reshape', [names[1 - at]!, lowering.ints([rows / times, times * columns])])[0]!
  const result = lowering.emit(op, at === 0 ? [repeated, maps] : [maps, repeated])
  return lowering.emit('Reshape', [result[0]!, lowering.ints(y.shape)])
}

/** The largest number up to `most` that divides n. */
function largestDivisor(n: number, most: number): number {
  for (let d = Math.floor(most); d > 1; d--) if (n % d === 0) return d
  return 1
}

/**
 * A single value beside a tensor whose last extent is 1: with as many axes as the other, since ONNX Runtime
 * otherwise broadcasts it for each element by itself, twenty times slower.
 */
function sameRank(lowering: Lowering, name: string, x: Tensor, other: Tensor): string {
  const rank = other.shape.length
  if (sizeOf(x.shape) !== 1 || x.shape.length >= rank || other.shape[rank - 1] !== 1) return name
  return lowering.emit('Reshape', [name, lowering.ints(new Array<number>(rank).fill(1))])[0]!
}

/** An op of one tensor. */
function unary(
  op: string,
  gradient: ((dy: Tensor, x: Tensor, y: Tensor) => Tensor) | NoGradient,
  onnx?: OpDefinition['onnx'],
): OpDefinition {
  return {
    op,
    shape: ([x]) => ({ dtype: x!.dtype, shape: x!.shape }),
    gradient:
      'none' in gradient ? gradient : ({ inputs: [x], outputs: [y] }, [dy]) => [gradient(dy!, x!, y!)],
    onnx: onnx ?? ((lowering, inputs) => lowering.emit(op, inputs)),
  }
}

// a + b: da = dy, db = dy
export const Add = binary('Add', dy => [dy, dy])
// a - b: da = dy, db = -dy
export const Sub = binary('Sub', dy => [dy, neg(dy)])
// a b: da = dy b, db = dy a
export const Mul = binary('Mul', (dy, a, b) => [mul(dy, b), mul(dy, a)])
// a / b: da = dy / b, db = -dy y / b
export const Div = binary('Div', (dy, _a, b, y) => [div(dy, b), neg(div(mul(dy, y), b))])
// max(a, b): to b where b > a, else to a, so that the first maximum wins a tie
export const Max = binary('Max', (dy, a, b) => tournament(dy, sub(b, a)))
// min(a, b): to b where b < a, else to a
export const Min = binary('Min', (dy, a, b) => tournament(dy, sub(a, b)))
// comparisons and integers carry no gradient
export const Equal = comparison('Equal')
export const Less = comparison('Less')

function tournament(dy: Tensor, lead: Tensor): Pair {
  const db = mul(dy, step(lead))
  return [sub(dy, db), db]
}

function comparison(op: string): OpDefinition {
  return {
    ...binary(op, { none: 'a comparison is piecewise constant' }),
    shape([a, b]) {
      sameDType(op, [a!, b!])
      return { dtype: 'bool', shape: broadcastShapes(op, a!.shape, b!.shape) }
    },
  }
}

// -x: dx = -dy
export const Neg = unary('Neg', dy => neg(dy))
// e^x: dx = dy y
export const Exp = unary('Exp', (dy, _x, y) => mul(dy, y))
// ln x: dx = dy / x
export const Log = unary('Log', (dy, x) => div(dy, x))
// x^(1/2): dx = dy / (2 y)
export const Sqrt = unary('Sqrt', (dy, _x, y) => div(mul(dy, 0.5), y))
// 1 / x: dx = -dy y^2
export const Reciprocal = unary('Reciprocal', (dy, _x, y) => neg(mul(dy, mul(y, y))))
// |x|: dx = dy sign(x)
// The sign as a steep line between -1 and 1: exact for normal numbers, and half the passes of two steps.
export const Abs = unary('Abs', (dy, x) => mul(dy, clip(mul(x, 3e38), -1, 1)))
// erf(x): dx = dy 2 / sqrt(pi) e^(-x^2)
export const Erf = unary('Erf', (dy, x) => mul(dy, mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI))))
// sin x: dx = dy cos x
export const Sin = unary('Sin', (dy, x) => mul(dy, cos(x)))
// cos x: dx = -dy sin x
export const Cos = unary('Cos', (dy, x) => neg(mul(dy, sin(x))))
// tanh x: dx = dy (1 - y^2)
export const Tanh = unary('Tanh', (dy, _x, y) => mul(dy, sub(1, mul(y, y))))
// 1 / (1 + e^-x): dx = dy (y - y^2)
export const Sigmoid = unary('Sigmoid', (dy, _x, y) => mul(dy, sub(y, mul(y, y))))
// ln(1 + e^x): dx = dy sigmoid(x)
export const Softplus = unary('Softplus', (dy, x) => mul(dy, sigmoid(x)))
// max(x, 0): dx = dy [y > 0]
export const Relu = unary('Relu', (dy, _x, y) => mul(dy, step(y)))
// [x > 0]. HardSigmoid with a huge slope is vectorized where Greater, Sign and Where are not.
export const Step = unary('Step', { none: 'piecewise constant: 0 wherever it exists' }, (lowering, inputs) =>
  lowering.emit('HardSigmoid', inputs, { alpha: { float: 3e38 }, beta: { float: 0 } }),
)

// x where x > 0, alpha x elsewhere, 0 <= alpha <= 1: dx = dy where y > 0, alpha dy elsewhere. By y, not x:
// where nothing else reads x, ONNX Runtime computes y within the matrix product before it.
export const LeakyRelu: OpDefinition = {
  ...unary('LeakyRelu', { none: 'replaced below' }),
  gradient: ({ outputs: [y], attributes }, [dy]) => [mul(dy!, clip(step(y!), attributes.alpha, Infinity))],
  onnx: (lowering, inputs, { attributes }) =>
    lowering.emit('LeakyRelu', inputs, { alpha: { float: attributes.alpha } }),
}

// x where x > 0, alpha (e^x - 1) elsewhere: dx = dy where y > 0, dy (y + alpha) elsewhere
export const Elu: OpDefinition = {
  ...unary('Elu', { none: 'replaced below' }),
  gradient({ outputs: [y], attributes }, [dy]) {
    // min(y, 0) + alpha is the slope of the negative side and alpha on the positive one.
    const positive = step(y!)
    const negative = mul(sub(1, positive), add(min(y!, 0), attributes.alpha))
    return [mul(dy!, add(positive, negative))]
  },
  onnx: (lowering, inputs, { attributes }) =>
    lowering.emit('Elu', inputs, { alpha: { float: attributes.alpha } }),
}

// x kept within [least, most]: dx = dy inside
export const Clip: OpDefinition = {
  ...unary('Clip', { none: 'replaced below' }),
  gradient({ inputs: [x], attributes: { least, most } }, [dy]) {
    const above = Number.isFinite(least) ? mul(dy!, step(sub(x!, least))) : dy!
    return [Number.isFinite(most) ? mul(above, step(sub(most, x!))) : above]
  },
  onnx(lowering, [x], node) {
    const { least, most } = node.attributes
    const bound = (value: number) =>
      Number.isFinite(value) ? lowering.constant(hostTensor(node.outputs[0]!.dtype, [], [value])) : ''
    return lowering.emit('Clip', Number.isFinite(most) ? [x!, bound(least), bound(most)] : [x!, bound(least)])
  },
}

// x^p for a constant p: dx = dy p x^(p - 1)
export const Pow: OpDefinition = {
  ...unary('Pow', { none: 'replaced below' }),
  gradient: ({ inputs: [x], attributes: { exponent } }, [dy]) => [
    mul(dy!, mul(pow(x!, exponent - 1), exponent)),
  ],
  onnx: (lowering, [x], node) =>
    lowering.emit('Pow', [
      x!,
      lowering.constant(hostTensor(node.outputs[0]!.dtype, [], [node.attributes.exponent])),
    ]),
}

// another dtype: between floats the gradient is cast back; integers carry none
export const Cast: OpDefinition = {
  op: 'Cast',
  shape: ([x], { to }: { to: DType }) => ({ dtype: to, shape: x!.shape }),
  gradient: ({ inputs: [x] }, [dy]) => [isFloat(x!.dtype) ? cast(dy!, x!.dtype) : undefined],
  onnx: (lowering, inputs, { attributes }) =>
    lowering.emit('Cast', inputs, { to: { int: elementTypes[attributes.to as DType] } }),
}

// the same value, through which no gradient flows
export const StopGradient = unary(
  'StopGradient',
  { none: 'stops gradients on purpose' },
  (_lowering, [x]) => x!,
)

export function isFloat(dtype: DType): boolean {
  return dtype === 'float32' || dtype === 'float64'
}

type Operand = Tensor | number

function operands(op: string, a: Operand, b: Operand): [Tensor, Tensor] {
  if (typeof a === 'number' && typeof b === 'number')
    throw new UsageError(`${op}: expected at least one tensor`)
  const dtype = typeof a === 'number' ? (b as Tensor).dtype : a.dtype
  const lift = (x: Operand) => (typeof x === 'number' ? scalar(x, dtype) : x)
  return [lift(a), lift(b)]
}

export function add(a: Operand, b: Operand): Tensor {
  return isNumber(a, 0) ? (b as Tensor) : isNumber(b, 0) ? (a as Tensor) : apply(Add, operands('Add', a, b))
}
export function sub(a: Operand, b: Operand): Tensor {
  return isNumber(b, 0) ? (a as Tensor) : apply(Sub, operands('Sub', a, b))
}
export function mul(a: Operand, b: Operand): Tensor {
  if (isNumber(a, 1)) return b as Tensor
  if (isNumber(b, 1)) return a as Tensor
  const [x, y] = operands('Mul', a, b)
  return product(x, y) ?? apply(Mul, [x, y].map(asConstant))
}

/** Of two numbers, or one number and one that is repeated: as the loss of each example counts alike. */
function product(a: Tensor, b: Tensor): Tensor | undefined {
  const [x, y] = [repeatedNumber(a), repeatedNumber(b)]
  if (x === undefined || y === undefined || a.dtype !== 'float32' || b.dtype !== 'float32') return undefined
  return expand(scalar(Math.fround(x * y)), broadcastShapes('Mul', a.shape, b.shape))
}

/** Values up to which a repeated number is a constant of its shape, for a node less. */
const FEW_VALUES = 4096

function asConstant(x: Tensor): Tensor {
  const number = x.node.op === Constant || sizeOf(x.shape) > FEW_VALUES ? undefined : repeatedNumber(x)
  return number === undefined ? x : filled(x.shape, number, x.dtype)
}

export function div(a: Operand, b: Operand): Tensor {
  return isNumber(b, 1) ? (a as Tensor) : apply(Div, operands('Div', a, b))
}
export const max = (a: Operand, b: Operand): Tensor => apply(Max, operands('Max', a, b))
export const min = (a: Operand, b: Operand): Tensor => apply(Min, operands('Min', a, b))
export const equal = (a: Operand, b: Operand): Tensor => apply(Equal, operands('Equal', a, b))
export const less = (a: Operand, b: Operand): Tensor => apply(Less, operands('Less', a, b))
export const neg = (x: Tensor): Tensor => apply(Neg, [x])
export const exp = (x: Tensor): Tensor => apply(Exp, [x])
export const log = (x: Tensor): Tensor => apply(Log, [x])
export const sqrt = (x: Tensor): Tensor => apply(Sqrt, [x])
export const reciprocal = (x: Tensor): Tensor => apply(Reciprocal, [x])
export const abs = (x: Tensor): Tensor => apply(Abs, [x])
export const erf = (x: Tensor): Tensor => apply(Erf, [x])
export const sin = (x: Tensor): Tensor => apply(Sin, [x])
export const cos = (x: Tensor): Tensor => apply(Cos, [x])
export const tanh = (x: Tensor): Tensor => apply(Tanh, [x])
export const sigmoid = (x: Tensor): Tensor => apply(Sigmoid, [x])
export const softplus = (x: Tensor): Tensor => apply(Softplus, [x])
export const relu = (x: Tensor): Tensor => apply(Relu, [x])
export const step = (x: Tensor): Tensor => apply(Step, [x])
export const stopGradient = (x: Tensor): Tensor => apply(StopGradient, [x])
/** `x` where positive, `alpha x` elsewhere; alpha within 0..1. */
export function leakyRelu(x: Tensor, alpha: number): Tensor {
  checkRange('LeakyRelu', 'alpha', alpha, 0, 1)
  return apply(LeakyRelu, [x], { alpha })
}
export const elu = (x: Tensor, alpha: number): Tensor => apply(Elu, [x], { alpha })
/** `x` kept within `[least, most]`; either bound may be infinite. */
export function clip(x: Tensor, least: number, most: number): Tensor {
  return apply(Clip, [x], { least, most })
}
/** `x` to a constant power. */
export function pow(x: Tensor, exponent: number): Tensor {
  if (exponent === 0) return add(zerosLike(x), 1)
  if (exponent === 1) return x
  if (exponent === 2) return mul(x, x)
  if (exponent === 0.5) return sqrt(x)
  return exponent === -1 ? reciprocal(x) : apply(Pow, [x], { exponent })
}
export const cast = (x: Tensor, to: DType): Tensor => (x.dtype === to ? x : apply(Cast, [x], { to }))

function isNumber(x: Operand, value: number): boolean {
  return typeof x === 'number' ? x === value : x.shape.length === 0 && constantValue(x) === value
}
