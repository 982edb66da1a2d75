/** Host tensors to and from ONNX Runtime's. */
import type { Tensor } from 'onnxruntime-node'
import { FoveaError } from '../util/errors.ts'
import { arrayTypes, type DType, type HostTensor, type TensorData } from '../util/host-tensor.ts'

/** What is used of ONNX Runtime's JavaScript packages, which share one interface. */
export type OrtModule = Pick<typeof import('onnxruntime-node'), 'InferenceSession' | 'Tensor'>

/**
 * ONNX Runtime reads `tensor`'s memory during each run. Some of its sums begin at the next multiple
 * of 16 bytes, so that their bits depend on the address: values that a message left at an odd place
 * move to memory of their own; and so do those in memory that threads share, which it refuses.
 */
export function ortTensorOf(ort: Pick<OrtModule, 'Tensor'>, tensor: HostTensor): Tensor {
  const { dtype, shape, data } = aligned(ownTensor(tensor))
  return new ort.Tensor(dtype, data as Float32Array, [...shape])
}

/** The same values at a multiple of 16 bytes. */
export function aligned(tensor: HostTensor): HostTensor {
  const { dtype, data } = tensor
  return data.byteOffset % 16 === 0 ? tensor : { ...tensor, data: copyOf(dtype, data) }
}

/** Shares memory with `tensor`. */
export function hostTensorOf(tensor: Tensor, name: string): HostTensor {
  if (!Object.hasOwn(arrayTypes, tensor.type))
    throw new FoveaError(`"${name}" has ONNX's type ${tensor.type}, which Fovea does not hold`)
  return { dtype: tensor.type as DType, shape: tensor.dims, data: tensor.data as TensorData }
}

/** The same values in memory that no other thread knows: a copy where they were not. */
export function ownTensor(tensor: HostTensor): HostTensor {
  const { dtype, data } = tensor
  return data.buffer instanceof SharedArrayBuffer ? { ...tensor, data: copyOf(dtype, data) } : tensor
}

/** Not `slice()`: that of a Buffer does not copy. */
function copyOf(dtype: DType, data: TensorData): TensorData {
  return new arrayTypes[dtype](data as Float32Array & BigInt64Array)
}
