/** Tensors that come from outside a graph: its inputs and constants. */
import { UsageError } from '../../util/errors.ts'
import { type DType, type HostTensor, hostTensor, type Shape } from '../../util/host-tensor.ts'
import { apply, type OpDefinition, type Tensor, type TensorType } from '../node.ts'

// Input: a named value that a program receives, or that its caller computes.
export const Input: OpDefinition = {
  op: 'Input',
  shape: (_inputs, { dtype, shape }: TensorType) => ({ dtype, shape }),
  gradient: { none: 'a source has no inputs' },
}

/** A named value of known type, given when the program runs. */
export function input(name: string, dtype: DType, shape: Shape): Tensor {
  return apply(Input, [], { name, dtype, shape })
}

// Constant: values known when the program is written.
export const Constant: OpDefinition = {
  op: 'Constant',
  shape: (_inputs, { value }: { value: HostTensor }) => ({ dtype: value.dtype, shape: value.shape }),
  gradient: { none: 'a source has no inputs' },
  onnx: (lowering, _inputs, node) => lowering.constant(node.attributes.value),
}

/** A tensor of fixed values. */
export function constant(value: HostTensor): Tensor {
  return apply(Constant, [], { value })
}

/** A float32 (or other) scalar constant. */
export function scalar(value: number, dtype: DType = 'float32'): Tensor {
  return constant(hostTensor(dtype, [], [value]))
}

/** A constant of one repeated value. */
export function filled(shape: Shape, value: number, dtype: DType = 'float32'): Tensor {
  const size = shape.reduce((a, b) => a * b, 1)
  return constant(hostTensor(dtype, shape, new Array<number>(size).fill(value)))
}

/** The number that a scalar constant holds, or undefined. */
export function constantValue(tensor: Tensor): number | undefined {
  if (tensor.node.op !== Constant) return undefined
  const { value } = tensor.node.attributes as { value: HostTensor }
  return value.data.length === 1 ? Number(value.data[0]) : undefined
}

/** Throws unless all tensors have one dtype, and returns it. */
export function sameDType(op: string, tensors: readonly Tensor[]): DType {
  const dtype = tensors[0]!.dtype
  for (const tensor of tensors)
    if (tensor.dtype !== dtype)
      throw new UsageError(
        `${op}: expected tensors of one dtype, received ${tensors.map(t => t.dtype).join(' and ')}`,
      )
  return dtype
}
