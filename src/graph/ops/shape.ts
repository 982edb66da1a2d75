/** Ops that move values and compute none. */
import { broadcastAxes, broadcastShapes, normalizeAxis } from '../../util/broadcast.ts'
import { UsageError } from '../../util/errors.ts'
import { hostTensor, type Shape, sameShape, showShape, sizeOf } from '../../util/host-tensor.ts'
import { apply, applyAll, type OpDefinition, type Tensor } from '../node.ts'
import { reduceSum } from './reduce.ts'
import { constantValue, sameDType, scalar } from './source.ts'

// Reshape: the same values in row-major order under another shape. dx = reshape(dy)
export const Reshape: OpDefinition = {
  op: 'Reshape',
  shape([x], { shape }: { shape: Shape }) {
    if (sizeOf(shape) !== sizeOf(x!.shape))
      throw new UsageError(
        `Reshape: ${showShape(x!.shape)} has ${sizeOf(x!.shape)} values, ${showShape(shape)} has ${sizeOf(shape)}`,
      )
    return { dtype: x!.dtype, shape }
  },
  gradient: ({ inputs: [x] }, [dy]) => [reshape(dy!, x!.shape)],
  onnx: (lowering, [x], { attributes }) => lowering.emit('Reshape', [x!, lowering.ints(attributes.shape)]),
}

/** `x` under another shape of as many values; one extent may be -1. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = shape.reduce((product, extent) => (extent === -1 ? product : product * extent), 1)
  const full = shape.map(extent => (extent === -1 ? sizeOf(x.shape) / known : extent))
  if (!full.every(Number.isInteger))
    throw new UsageError(`Reshape: the values of ${showShape(x.shape)} cannot fill ${showShape(shape)}`)
  if (sameShape(full, x.shape)) return x
  // A reshape of a reshape is one reshape.
  const from = x.node.op === Reshape ? x.node.inputs[0]! : x
  return sameShape(full, from.shape) ? from : apply(Reshape, [from], { shape: full })
}

// Transpose: y[i_perm] = x[i]. dx = transpose(dy, inverse of perm)
export const Transpose: OpDefinition = {
  op: 'Transpose',
  shape: ([x], { perm }: { perm: readonly number[] }) => {
    checkPermutation(x!, perm)
    return { dtype: x!.dtype, shape: perm.map(axis => x!.shape[axis]!) }
  },
  gradient: (node, [dy]) => [transpose(dy!, inversePermutation(node.attributes.perm))],
  onnx: (lowering, [x], { attributes }) =>
    lowering.emit('Transpose', [x!], { perm: { ints: attributes.perm } }),
}

/** `x` with its axes in the order `perm`. */
export function transpose(x: Tensor, perm: readonly number[]): Tensor {
  checkPermutation(x, perm)
  if (perm.every((axis, i) => axis === i)) return x
  if (x.node.op === Transpose) {
    const first = x.node.attributes.perm as readonly number[]
    return transpose(
      x.node.inputs[0]!,
      perm.map(axis => first[axis]!),
    )
  }
  // Axes of extent 1 move for free.
  const moved = perm.filter(axis => x.shape[axis] !== 1)
  if (moved.every((axis, i) => i === 0 || axis > moved[i - 1]!))
    return reshape(
      x,
      perm.map(axis => x.shape[axis]!),
    )
  return apply(Transpose, [x], { perm })
}

function checkPermutation(x: Tensor, perm: readonly number[]): void {
  if (perm.length !== x.shape.length || x.shape.some((_, axis) => !perm.includes(axis)))
    throw new UsageError(
      `Transpose: ${showShape(perm)} is no permutation of the axes of ${showShape(x.shape)}`,
    )
}

function inversePermutation(perm: readonly number[]): number[] {
  const inverse: number[] = []
  for (const [i, axis] of perm.entries()) inverse[axis] = i
  return inverse
}

// Expand: broadcasting made explicit. dx = sum of dy over the axes that were repeated
export const Expand: OpDefinition = {
  op: 'Expand',
  shape([x], { shape }: { shape: Shape }) {
    if (!sameShape(broadcastShapes('Expand', x!.shape, shape), shape))
      throw new UsageError(`Expand: ${showShape(x!.shape)} cannot be expanded to ${showShape(shape)}`)
    return { dtype: x!.dtype, shape }
  },
  gradient: ({ inputs: [x] }, [dy]) => [sumTo(dy!, x!.shape)],
  onnx: (lowering, [x], { attributes }) => lowering.emit('Expand', [x!, lowering.ints(attributes.shape)]),
}

/** `x` repeated to `shape`. */
export function expand(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : apply(Expand, [x], { shape })
}

/** The number that a tensor has everywhere, where one is repeated to it; else undefined. */
export function repeatedNumber({ node }: Tensor): number | undefined {
  const isRepeated = node.op === Expand || node.op === Reshape
  return isRepeated ? repeatedNumber(node.inputs[0]!) : constantValue(node.outputs[0]!)
}

/** `x` summed over the axes along which `shape` would broadcast to it: the gradient of broadcasting. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  const axes = broadcastAxes(shape, x.shape)
  return axes.length === 0 ? x : reshape(reduceSum(x, axes), shape)
}

// Concat: inputs one after another along an axis. dx_i = slice of dy
export const Concat: OpDefinition = {
  op: 'Concat',
  shape(inputs, { axis }: { axis: number }) {
    const dtype = sameDType('Concat', inputs)
    const shape = [...inputs[0]!.shape]
    for (const other of inputs.slice(1)) {
      const fits =
        other.shape.length === shape.length && other.shape.every((e, i) => i === axis || e === shape[i])
      if (!fits)
        throw new UsageError(
          `Concat: shapes ${inputs.map(t => showShape(t.shape)).join(' and ')} differ outside axis ${axis}`,
        )
      shape[axis]! += other.shape[axis]!
    }
    return { dtype, shape }
  },
  gradient: ({ inputs, attributes }, [dy]) =>
    split(
      dy!,
      attributes.axis,
      inputs.map(t => t.shape[attributes.axis]!),
    ),
  onnx: (lowering, inputs, { attributes }) =>
    lowering.emit('Concat', inputs, { axis: { int: attributes.axis } }),
}

/** The inputs one after another along `axis`. */
export function concat(inputs: readonly Tensor[], axis: number): Tensor {
  if (inputs.length === 1) return inputs[0]!
  return apply(Concat, inputs, { axis: normalizeAxis('Concat', axis, inputs[0]!.shape.length) })
}

// Split: the inverse of Concat. dx = concat of all dy_i
export const Split: OpDefinition = {
  op: 'Split',
  shape([x], { axis, sizes }: { axis: number; sizes: readonly number[] }) {
    const extent = x!.shape[axis]!
    if (sizes.reduce((a, b) => a + b, 0) !== extent)
      throw new UsageError(
        `Split: sizes ${showShape(sizes)} do not add up to ${extent}, axis ${axis} of ${showShape(x!.shape)}`,
      )
    return sizes.map(size => ({ dtype: x!.dtype, shape: x!.shape.map((e, i) => (i === axis ? size : e)) }))
  },
  gradient: ({ outputs, attributes }, dys) => [
    concat(
      dys.map((dy, i) => dy ?? zerosLike(outputs[i]!)),
      attributes.axis,
    ),
  ],
  onnx: (lowering, [x], { attributes }) =>
    lowering.emit(
      'Split',
      [x!, lowering.ints(attributes.sizes)],
      { axis: { int: attributes.axis } },
      { outputs: attributes.sizes.length },
    ),
}

/** `x` cut along `axis` into pieces of the given sizes. */
export function split(x: Tensor, axis: number, sizes: readonly number[]): readonly Tensor[] {
  if (sizes.length === 1 && sizes[0] === x.shape[axis]) return [x]
  return applyAll(Split, [x], { axis: normalizeAxis('Split', axis, x.shape.length), sizes })
}

// Slice: x[start, start + step, ..., count values] along one axis. dx = dy spread over zeros
export const Slice: OpDefinition = {
  op: 'Slice',
  shape([x], { axis, start, step, count }: SliceAttributes) {
    const extent = x!.shape[axis]!
    if (start < 0 || step < 1 || count < 1 || start + (count - 1) * step >= extent)
      throw new UsageError(
        `Slice: ${count} values from ${start} by ${step} do not fit in ${extent}, axis ${axis} of ${showShape(x!.shape)}`,
      )
    return { dtype: x!.dtype, shape: x!.shape.map((e, i) => (i === axis ? count : e)) }
  },
  gradient({ inputs: [x], attributes }, [dy]) {
    const { axis, start, step, count } = attributes as SliceAttributes
    const before = dy!.shape.slice(0, axis)
    const after = dy!.shape.slice(axis + 1)
    const none = [...before, ...after].map(() => 0)
    // Each value is followed by step - 1 zeros; what then sticks out beyond the end are zeros and is cut off.
    const spread =
      step === 1
        ? dy!
        : reshape(
            pad(
              reshape(dy!, [...before, count, 1, ...after]),
              [...none.slice(0, axis), 0, 0, ...none.slice(axis)],
              [...none.slice(0, axis), 0, step - 1, ...none.slice(axis)],
            ),
            [...before, count * step, ...after],
          )
    const room = x!.shape[axis]! - start
    const cut = count * step > room ? slice(spread, axis, 0, room) : spread
    const at = (value: number) => dy!.shape.map((_, i) => (i === axis ? value : 0))
    return [pad(cut, at(start), at(x!.shape[axis]! - start - cut.shape[axis]!))]
  },
  onnx: (lowering, [x], { attributes }) => {
    const { axis, start, step, count } = attributes as SliceAttributes
    const bounds = [[start], [start + (count - 1) * step + 1], [axis], [step]].map(v => lowering.ints(v))
    return lowering.emit('Slice', [x!, ...bounds])
  },
}

interface SliceAttributes {
  readonly axis: number
  readonly start: number
  readonly step: number
  readonly count: number
}

/** `count` values of `axis`, from `start` on, every `step`-th. */
export function slice(x: Tensor, axis: number, start: number, count: number, step = 1): Tensor {
  if (start === 0 && count === x.shape[axis]) return x
  return apply(Slice, [x], { axis: normalizeAxis('Slice', axis, x.shape.length), start, step, count })
}

export interface PadAttributes {
  /** Cells before each axis, and after it. */
  readonly before: Shape
  readonly after: Shape
  readonly value: number
}

// Pad: a constant around x. dx = dy without the border
export const Pad: OpDefinition = {
  op: 'Pad',
  shape([x], { before, after }: PadAttributes) {
    return { dtype: x!.dtype, shape: x!.shape.map((extent, i) => extent + before[i]! + after[i]!) }
  },
  gradient: ({ inputs: [x], attributes }, [dy]) => [
    x!.shape.reduce((cut, extent, axis) => slice(cut, axis, attributes.before[axis], extent), dy!),
  ],
  onnx: (lowering, [x], node) => {
    const { before, after, value } = node.attributes
    const filler = lowering.constant(hostTensor(node.outputs[0]!.dtype, [], [value]))
    return lowering.emit('Pad', [x!, lowering.ints([...before, ...after]), filler])
  },
}

/** `x` with `before[i]` and `after[i]` cells of `value` around each axis. */
export function pad(x: Tensor, before: Shape, after: Shape, value = 0): Tensor {
  if ([...before, ...after].every(n => n === 0)) return x
  if ([...before, ...after].some(n => n < 0))
    throw new UsageError(
      `Pad: expected counts of at least 0, received ${showShape(before)} and ${showShape(after)}`,
    )
  return apply(Pad, [x], { before, after, value })
}

/** Zeros of a tensor's type. */
export function zerosLike(x: Tensor): Tensor {
  return expand(reshape(scalar(0, x.dtype), new Array<number>(x.shape.length).fill(1)), x.shape)
}
