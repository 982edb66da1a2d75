/** Host values: plain typed arrays with a shape, row-major. */

export type DType = 'float32' | 'float64' | 'int32' | 'int64' | 'uint8' | 'uint32' | 'bool'

export type Shape = readonly number[]

export type TensorData = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array | Uint32Array

/** A tensor's values in the host's memory. `bool` is kept as a Uint8Array of 0 and 1. */
export interface HostTensor {
  readonly dtype: DType
  readonly shape: Shape
  readonly data: TensorData
}

export const arrayTypes = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint32: Uint32Array,
  bool: Uint8Array,
} as const

export const bytesPerElement: Record<DType, number> = {
  float32: 4,
  float64: 8,
  int32: 4,
  int64: 8,
  uint8: 1,
  uint32: 4,
  bool: 1,
}

/** The number of elements of a shape; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, extent) => product * extent, 1)
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, i) => extent === b[i])
}

/** `[32, 784]`, for messages. */
export function showShape(shape: readonly (number | string)[]): string {
  return `[${shape.join(', ')}]`
}

/** A host tensor of `dtype` from numbers. */
export function hostTensor(dtype: DType, shape: Shape, values: ArrayLike<number>): HostTensor {
  const size = sizeOf(shape)
  if (values.length !== size)
    throw new RangeError(
      `host tensor ${showShape(shape)}: expected ${size} values, received ${values.length}`,
    )
  if (dtype === 'int64') return { dtype, shape, data: BigInt64Array.from(Array.from(values, BigInt)) }
  return { dtype, shape, data: arrayTypes[dtype].from(values as ArrayLike<number>) as TensorData }
}

/** A host tensor of zeros. */
export function zeros(dtype: DType, shape: Shape): HostTensor {
  return { dtype, shape, data: new arrayTypes[dtype](sizeOf(shape)) as TensorData }
}

/** The values as numbers. */
export function toNumbers(tensor: HostTensor): number[] {
  return Array.from(tensor.data as ArrayLike<number | bigint>, Number)
}

/** The bytes of a tensor's values (little-endian), sharing memory with it. */
export function bytesOf(tensor: HostTensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = tensor.data
  return new Uint8Array(buffer, byteOffset, byteLength)
}
