/** Ops that pick rows, and the counter-based random bits. */
import { UsageError } from '../../util/errors.ts'
import { hostTensor, type Shape, showShape, sizeOf } from '../../util/host-tensor.ts'
import { apply, type Lowering, type OpDefinition, type Tensor } from '../node.ts'
import { cast, equal } from './elementwise.ts'
import { reshape } from './shape.ts'
import { constant, sameDType } from './source.ts'

// y = x[indices] along the first axis. dx = dy added up at the rows where it came from
export const Gather: OpDefinition = {
  op: 'Gather',
  shape([x, indices]) {
    if (indices!.dtype !== 'int32' && indices!.dtype !== 'int64')
      throw new UsageError(`Gather: expected indices of int32 or int64, received ${indices!.dtype}`)
    return { dtype: x!.dtype, shape: [...indices!.shape, ...x!.shape.slice(1)] }
  },
  gradient: ({ inputs: [x, indices] }, [dy]) => [
    apply(ScatterAdd, [indices!, dy!], { rows: x!.shape[0] }),
    undefined,
  ],
  onnx(lowering, [x, indices], { inputs, outputs }) {
    const few = sizeOf(outputs[0]!.shape) < 1024
    if (inputs[0]!.shape.length > 1 || few || lowering.portable)
      return lowering.emit('Gather', [x!, indices!], { axis: { int: 0 } })
    // Five times as fast as rows of one value each.
    const flat = lowering.emit('Reshape', [indices!, lowering.ints([-1])])[0]!
    const values = lowering.emit('GatherElements', [x!, flat], { axis: { int: 0 } })[0]!
    return lowering.emit('Reshape', [values, lowering.ints(outputs[0]!.shape)])
  },
}

/** The rows of `x` (first axis) at integer `indices` of any shape. */
export function gather(x: Tensor, indices: Tensor): Tensor {
  return apply(Gather, [x, indices])
}

// y[indices[i]] += x[i] on zeros of `rows` rows. dx = dy[indices]
export const ScatterAdd: OpDefinition = {
  op: 'ScatterAdd',
  shape: ([indices, x], { rows }: { rows: number }) => ({
    dtype: x!.dtype,
    shape: [rows, ...x!.shape.slice(indices!.shape.length)],
  }),
  gradient: ({ inputs: [indices] }, [dy]) => [undefined, gather(dy!, indices!)],
  onnx(lowering, [indices, x], { inputs, outputs }) {
    const [first] = outputs
    const zeros = lowering.constant(
      hostTensor(first!.dtype, first!.shape, new Array<number>(sizeOf(first!.shape)).fill(0)),
    )
    const wide = lowering.emit('Cast', [indices!], { to: { int: 7 } })[0]!
    const column = lowering.emit('Reshape', [wide, lowering.ints([...inputs[0]!.shape, 1])])[0]!
    return lowering.emit('ScatterND', [zeros, column, x!], { reduction: { string: 'add' } })
  },
}

/** A row of 0 and 1 for each label: `[N]` integers to `[N, classes]` of `dtype`. */
export function oneHot(labels: Tensor, classes: number, dtype: 'float32' | 'float64' = 'float32'): Tensor {
  if (labels.shape.length !== 1)
    throw new UsageError(`oneHot: expected labels of shape [N], received ${showShape(labels.shape)}`)
  const range = hostTensor(
    labels.dtype,
    [1, classes],
    Array.from({ length: classes }, (_, i) => i),
  )
  return cast(equal(reshape(labels, [labels.shape[0]!, 1]), constant(range)), dtype)
}

// [hash(element, key) < threshold] as 0 and 1: independent Bernoulli draws, a pure function of the key.
// State that a checkpoint would miss there is none.
export const RandomMask: OpDefinition = {
  op: 'RandomMask',
  shape: drawn('RandomMask'),
  gradient: { none: 'random numbers depend on no input' },
  onnx(lowering, [key], { attributes }) {
    const { shape, probability } = attributes as { shape: Shape; probability: number }
    const bits = randomBits(lowering, key!, shape)
    const threshold = Math.min(2 ** 32 - 1, Math.round(probability * 2 ** 32))
    const drawn = lowering.emit('Less', [bits, lowering.constant(hostTensor('uint32', [], [threshold]))])[0]!
    return lowering.emit('Cast', [drawn], { to: { int: 1 } })
  },
}

/** A float32 mask of `shape`: 1 with `probability`, else 0. `key` is a uint32 scalar, new for each step. */
export function randomMask(key: Tensor, shape: Shape, probability: number): Tensor {
  return apply(RandomMask, [key], { shape, probability })
}

// hash(element, key) / 2^32 in steps of 2^-24: independent uniform draws in [0, 1), a function of the key.
export const RandomUniform: OpDefinition = {
  op: 'RandomUniform',
  shape: drawn('RandomUniform'),
  gradient: { none: 'random numbers depend on no input' },
  onnx(lowering, [key], { attributes: { shape } }) {
    const bits = randomBits(lowering, key!, shape)
    // As many bits as float32 holds: 1 is never reached by rounding.
    const eight = lowering.constant(hostTensor('uint32', [], [8]))
    const high = lowering.emit('BitShift', [bits, eight], { direction: { string: 'RIGHT' } })
    const whole = lowering.emit('Cast', high, { to: { int: 1 } })[0]!
    return lowering.emit('Mul', [whole, lowering.constant(hostTensor('float32', [], [2 ** -24]))])
  },
}

/** float32 of `shape`, uniform in [0, 1), of 24 random bits. `key` is a uint32 scalar, new for each step. */
export function randomUniform(key: Tensor, shape: Shape): Tensor {
  return apply(RandomUniform, [key], { shape })
}

function drawn(op: string): OpDefinition['shape'] {
  return ([key], { shape }: { shape: Shape }) => {
    sameDType(op, [key!, { ...key!, dtype: 'uint32' }])
    return { dtype: 'float32', shape }
  }
}

/** 32 random bits for each element: two rounds of multiply and xor-shift over mixed element indices. */
function randomBits(lowering: Lowering, key: string, shape: Shape): string {
  const word = (value: number) => lowering.constant(hostTensor('uint32', [], [value]))
  const indices = Uint32Array.from({ length: sizeOf(shape) }, (_, i) => mix(i + 1))
  let z = lowering.emit('BitwiseXor', [lowering.constant(hostTensor('uint32', shape, indices)), key])[0]!
  z = lowering.emit('Mul', [z, word(0x9e3779b1)])[0]!
  const shifted = lowering.emit('BitShift', [z, word(15)], { direction: { string: 'RIGHT' } })[0]!
  z = lowering.emit('BitwiseXor', [z, shifted])[0]!
  return lowering.emit('Mul', [z, word(0x85ebca6b)])[0]!
}

/** The finalizer of MurmurHash3 (Appleby, public domain): spreads consecutive integers over all bits. */
function mix(value: number): number {
  let z = value >>> 0
  z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
  return (z ^ (z >>> 16)) >>> 0
}
