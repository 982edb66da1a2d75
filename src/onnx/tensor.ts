/** Reads a TensorProto: raw bytes, or the typed lists that other writers use. */
import { fromBfloat16, fromFloat16 } from '../util/float16.ts'
import {
  arrayTypes,
  bytesPerElement,
  type DType,
  type HostTensor,
  showShape,
  sizeOf,
} from '../util/host-tensor.ts'
import { elementTypes } from './schema.ts'
import {
  asInteger,
  corrupt,
  type Field,
  readBytes,
  readFields,
  readInteger,
  readNumbers,
  readString,
  unsupported,
  wireTypes,
} from './wire.ts'

const dtypes = new Map<number, DType>(
  Object.entries(elementTypes).map(([dtype, type]) => [type, dtype as DType]),
)

/** ONNX's numbers of FLOAT16 and BFLOAT16, and what their bits are. */
const halves = new Map([
  [10, fromFloat16],
  [16, fromBfloat16],
])

/**
 * The dtype that ONNX numbers `type`; refused when Fovea holds no such values, nor is to `widen` them to
 * float32.
 */
export function dtypeOf(type: number, where: string, widen = false): DType {
  const dtype = dtypes.get(type) ?? (widen && halves.has(type) ? 'float32' : undefined)
  if (dtype === undefined) throw unsupported(`element type ${type} of ${where}`)
  return dtype
}

/** The field of TensorProto that lists the values of a dtype when they are not raw. */
const listFields: Readonly<Record<DType, number>> = {
  float32: 4,
  int32: 5,
  uint8: 5,
  bool: 5,
  int64: 7,
  float64: 10,
  uint32: 11,
}

/**
 * The tensor with values of its own: nothing is shared with `bytes`. Floats of 16 bits are read if asked to
 * `widen` them.
 */
export function decodeTensor(
  bytes: Uint8Array,
  { widen = false }: { readonly widen?: boolean } = {},
): { name: string; tensor: HostTensor } {
  let name = ''
  let type = 0
  let raw: Uint8Array | undefined
  const shape: number[] = []
  const lists: Field[] = []
  for (const field of readFields(bytes)) {
    if (field.number === 1) shape.push(...readNumbers(field, 'varint').map(asInteger))
    else if (field.number === 2) type = readInteger(field)
    else if (field.number === 8) name = readString(field)
    else if (field.number === 9) raw = readBytes(field)
    else if (field.number === 3) throw unsupported('tensors in segments')
    else if (field.number === 14 && field.bits !== 0n) throw unsupported('tensors stored in another file')
    else if (Object.values(listFields).includes(field.number)) lists.push(field)
  }
  const where = `tensor "${name}" ${showShape(shape)}`
  const dtype = dtypeOf(type, where, widen)
  if (shape.some(extent => extent < 0)) throw corrupt(`${where} has a negative extent`)

  const half = halves.get(type)
  const values = half ? bytesOfFloats(half(halfBits(raw, lists))) : (raw ?? listed(dtype, lists))
  const expected = sizeOf(shape) * bytesPerElement[dtype]
  if (values.length !== expected)
    throw corrupt(`${where}: expected ${expected} bytes of ${dtype}, received ${values.length}`)
  // Not slice(): that of a Buffer does not copy.
  return { name, tensor: { dtype, shape, data: new arrayTypes[dtype](new Uint8Array(values).buffer) } }
}

/** The bits of floats of 16 bits: raw, or one in each value of the list for int32. */
function halfBits(raw: Uint8Array | undefined, lists: readonly Field[]): Uint16Array {
  if (!raw) return new Uint16Array(new Int32Array(new Uint8Array(listed('int32', lists)).buffer))
  return new Uint16Array(new Uint8Array(raw.subarray(0, raw.length - (raw.length % 2))).buffer)
}

function bytesOfFloats(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer)
}

/** The bytes of the values of a typed list. */
function listed(dtype: DType, fields: readonly Field[]): Uint8Array {
  const own = fields.filter(field => field.number === listFields[dtype])
  if (dtype === 'float32' || dtype === 'float64') {
    // A packed list of floats is their bytes already.
    if (own.length === 1 && own[0]!.wireType === wireTypes.bytes) return own[0]!.bytes
    const width = dtype === 'float32' ? 4 : 8
    const bits = own.flatMap(field => readNumbers(field, width === 4 ? 'fixed32' : 'fixed64'))
    const bytes = new Uint8Array(bits.length * width)
    const view = new DataView(bytes.buffer)
    for (const [i, value] of bits.entries()) {
      if (width === 4) view.setUint32(i * 4, Number(value), true)
      else view.setBigUint64(i * 8, value, true)
    }
    return bytes
  }
  const integers = own.flatMap(field => readNumbers(field, 'varint'))
  if (dtype === 'int64') return new Uint8Array(BigInt64Array.from(integers).buffer)
  const values = arrayTypes[dtype].from(integers.map(bits => Number(BigInt.asIntN(64, bits))))
  return new Uint8Array(values.buffer)
}
