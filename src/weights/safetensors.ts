/**
 * The safetensors file format: named tensors and a few texts, readable from Python, Rust and JavaScript
 * alike. https://github.com/huggingface/safetensors#format
 *
 *     8 bytes   length of the header, unsigned, little-endian
 *     header    JSON: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets": [begin, end]}}
 *     values    row-major, little-endian, without holes
 */
import { FoveaError, UsageError } from '../util/errors.ts'
import { fromBfloat16, fromFloat16 } from '../util/float16.ts'
import {
  arrayTypes,
  bytesOf,
  bytesPerElement,
  type DType,
  type HostTensor,
  showShape,
  sizeOf,
} from '../util/host-tensor.ts'

const codes: Readonly<Record<DType, string>> = {
  float64: 'F64',
  int64: 'I64',
  float32: 'F32',
  int32: 'I32',
  uint32: 'U32',
  uint8: 'U8',
  bool: 'BOOL',
}
const dtypes = new Map<unknown, DType>(Object.entries(codes).map(([dtype, code]) => [code, dtype as DType]))

/** Floats of 16 bits, which are read as float32: Fovea holds no others. */
const halves = new Map<unknown, (bits: Uint16Array) => Float32Array>([
  ['F16', fromFloat16],
  ['BF16', fromBfloat16],
])

/** The reference implementation refuses longer headers. */
export const LONGEST_HEADER = 100_000_000
const METADATA = '__metadata__'

/** The bytes of a safetensors file; the same tensors, in any order, give the same bytes. */
export function encodeSafetensors(
  tensors: Readonly<Record<string, HostTensor>>,
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  // Wide elements first keep every tensor aligned to its element, as readers that map the file expect.
  const entries = Object.entries(tensors).sort(
    ([a, { dtype: s }], [b, { dtype: t }]) => bytesPerElement[t] - bytesPerElement[s] || (a < b ? -1 : 1),
  )
  const header: [string, unknown][] = [[METADATA, sorted(metadata)]]
  let end = 0
  for (const [name, { dtype, shape, data }] of entries) {
    if (name === METADATA) throw new UsageError(`safetensors: "${METADATA}" is no name for a tensor`)
    if (data.length !== sizeOf(shape)) {
      const expected = `${sizeOf(shape)} values for the shape ${showShape(shape)}`
      throw new UsageError(`safetensors: "${name}": expected ${expected}, received ${data.length}`)
    }
    const begin = end
    end += data.byteLength
    header.push([name, { dtype: codes[dtype], shape, data_offsets: [begin, end] }])
  }
  const text = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)))
  const headerLength = Math.ceil(text.length / 8) * 8
  const file = new Uint8Array(8 + headerLength + end)
  new DataView(file.buffer).setBigUint64(0, BigInt(headerLength), true)
  file.fill(0x20, 8, 8 + headerLength)
  file.set(text, 8)
  let offset = 8 + headerLength
  for (const [, tensor] of entries) {
    file.set(bytesOf(tensor), offset)
    offset += tensor.data.byteLength
  }
  return file
}

/** Reads a file; its tensors share no memory with `bytes`. `where` names the file in errors. */
export function decodeSafetensors(
  bytes: Uint8Array,
  where: string,
): { tensors: Record<string, HostTensor>; metadata: Record<string, string> } {
  const fail = (what: string): never => {
    throw new FoveaError(`${where}: ${what}: the file is damaged, or not a safetensors file`)
  }
  if (bytes.length < 8) return fail(`expected at least 8 bytes, received ${bytes.length}`)
  const declared = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)
  if (declared > LONGEST_HEADER) return fail(`a header of ${declared} bytes is too long`)
  const headerLength = Number(declared)
  const values = bytes.subarray(8 + headerLength)
  if (bytes.length < 8 + headerLength)
    return fail(`expected a header of ${headerLength} bytes, received ${bytes.length - 8}`)

  const header = parse(bytes.subarray(8, 8 + headerLength)) ?? fail('the header is not a JSON object')
  const tensors: [string, HostTensor][] = []
  const spans: { name: string; begin: number; end: number }[] = []
  for (const [name, entry] of Object.entries(header)) {
    if (name === METADATA) continue
    if (!isObject(entry)) return fail(`the entry of "${name}" is not an object`)
    const { dtype: code, shape, data_offsets: span } = entry
    const half = halves.get(code)
    const dtype = half ? 'float32' : dtypes.get(code)
    if (dtype === undefined) {
      const known = [...dtypes.keys(), ...halves.keys()].join(', ')
      throw new FoveaError(
        `${where}: "${name}": expected a dtype of ${known}, received ${JSON.stringify(code)}`,
      )
    }
    if (!isSizes(shape)) return fail(`"${name}": ${JSON.stringify(shape)} is no shape`)
    if (!isSizes(span) || span.length !== 2)
      return fail(`"${name}": data_offsets are ${JSON.stringify(span)}`)
    const [begin, end] = span as [number, number]
    if (begin > end || end > values.length)
      return fail(`"${name}": bytes ${begin} to ${end} are not within the ${values.length} bytes of values`)
    const expected = sizeOf(shape) * (half ? 2 : bytesPerElement[dtype])
    if (end - begin !== expected)
      return fail(`"${name}": ${code} ${showShape(shape)} takes ${expected} bytes, received ${end - begin}`)
    spans.push({ name, begin, end })
    // Not slice(): that of a Buffer does not copy.
    const own = new Uint8Array(values.subarray(begin, end))
    if (dtype === 'bool' && own.some(value => value > 1)) return fail(`"${name}": a BOOL is neither 0 nor 1`)
    const data = half ? half(new Uint16Array(own.buffer)) : new arrayTypes[dtype](own.buffer)
    tensors.push([name, { dtype, shape, data }])
  }
  let covered = 0
  for (const { name, begin, end } of spans.sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin < covered) return fail(`"${name}" overlaps another tensor`)
    if (begin > covered) return fail(`${begin - covered} bytes before "${name}" belong to no tensor`)
    covered = end
  }
  if (covered !== values.length)
    return fail(`${values.length - covered} bytes at the end belong to no tensor`)

  const metadata = header[METADATA] ?? {}
  if (!isObject(metadata) || !Object.values(metadata).every(text => typeof text === 'string'))
    return fail(`${METADATA} is not an object of texts`)
  return { tensors: Object.fromEntries(tensors), metadata: metadata as Record<string, string> }
}

function parse(header: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(header))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(size => Number.isSafeInteger(size) && size >= 0)
}

function sorted(texts: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(texts).sort(([a], [b]) => (a < b ? -1 : 1)))
}
