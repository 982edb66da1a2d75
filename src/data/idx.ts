/**
 * The IDX format of MNIST and its successors: two zero bytes, a type byte (0x08: unsigned bytes), the number
 * of dimensions, each extent as a big-endian 32-bit integer, then the values, the last dimension fastest.
 * LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "File formats".
 */
import { FoveaError, UsageError } from '../util/errors.ts'
import { type HostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
import type { LabelledImages } from './data-set.ts'

/** A decompressed file's bytes, and its name for messages. */
export interface NamedBytes {
  readonly file: string
  readonly bytes: Uint8Array
}

const UNSIGNED_BYTE = 0x08
const typeNames: Record<number, string> = {
  8: 'unsigned bytes',
  9: 'signed bytes',
  11: '16-bit integers',
  12: '32-bit integers',
  13: '32-bit floats',
  14: '64-bit floats',
}

/** Reads an IDX file of images [count, height, width] as uint8 [count, height, width, 1]. */
export function parseIdxImages(source: NamedBytes): HostTensor {
  const { shape, data } = parseIdx(source, 3)
  return { dtype: 'uint8', shape: [...shape, 1], data }
}

/** Reads an IDX file of labels [count] as int32 [count]; each must lie in 0 .. classCount - 1. */
export function parseIdxLabels(source: NamedBytes, classCount: number): HostTensor {
  const { shape, data } = parseIdx(source, 1)
  const wrong = data.findIndex(label => label >= classCount)
  if (wrong >= 0)
    throw new FoveaError(
      `${source.file}: label ${data[wrong]} at position ${wrong} is no class: expected 0 .. ${classCount - 1}`,
    )
  return { dtype: 'int32', shape, data: Int32Array.from(data) }
}

/** Reads a pair of IDX files; both must hold the same number. */
export function parseLabelledImages(
  images: NamedBytes,
  labels: NamedBytes,
  classCount: number,
): LabelledImages {
  const imageTensor = parseIdxImages(images)
  const labelTensor = parseIdxLabels(labels, classCount)
  const count = imageTensor.shape[0]!
  if (labelTensor.shape[0] !== count)
    throw new FoveaError(
      `${images.file} holds ${count} images, but ${labels.file} holds ${labelTensor.shape[0]} labels: expected one label an image`,
    )
  return { count, images: imageTensor, labels: labelTensor }
}

/** The bytes of an IDX file of unsigned bytes. */
export function encodeIdx(shape: readonly number[], data: Uint8Array): Uint8Array {
  if (data.length !== sizeOf(shape))
    throw new UsageError(`IDX ${showShape(shape)}: expected ${sizeOf(shape)} values, received ${data.length}`)
  const bytes = new Uint8Array(4 + 4 * shape.length + data.length)
  const view = new DataView(bytes.buffer)
  bytes.set([0, 0, UNSIGNED_BYTE, shape.length])
  shape.forEach((extent, i) => {
    view.setUint32(4 + 4 * i, extent)
  })
  bytes.set(data, 4 + 4 * shape.length)
  return bytes
}

function parseIdx({ file, bytes }: NamedBytes, dimensions: 1 | 3) {
  const fail = (text: string) => new FoveaError(`${file}: ${text}`)
  const headerTooShort = (length: number) =>
    fail(`truncated: expected ${length} bytes of IDX header, received ${bytes.length} bytes in all`)
  if (bytes.length < 4) throw headerTooShort(4)
  const [zero0, zero1, type, rank] = bytes as unknown as [number, number, number, number]
  if (zero0 !== 0 || zero1 !== 0) {
    const gzip = zero0 === 0x1f && zero1 === 0x8b ? ' (gzip: decompress it first)' : ''
    throw fail(
      `not an IDX file: expected it to begin with 00 00, received ${hex(zero0)} ${hex(zero1)}${gzip}`,
    )
  }
  if (type !== UNSIGNED_BYTE) {
    const name = typeNames[type] === undefined ? '' : ` (${typeNames[type]})`
    throw fail(`expected IDX type 08 (unsigned bytes), received ${hex(type)}${name}`)
  }
  if (rank !== dimensions) {
    const wanted = dimensions === 3 ? '3 dimensions (images)' : '1 dimension (labels)'
    const kind = rank === 1 ? ': these are labels' : rank === 3 ? ': these are images' : ''
    throw fail(`expected ${wanted}, received ${rank}${kind}`)
  }
  const headerLength = 4 + 4 * rank
  if (bytes.length < headerLength) throw headerTooShort(headerLength)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i))
  const size = sizeOf(shape)
  if (size === 0) throw fail(`holds nothing: its shape is ${showShape(shape)}`)
  const expected = headerLength + size
  if (bytes.length !== expected) {
    const what = bytes.length < expected ? 'truncated' : 'trailing bytes'
    throw fail(`${what}: expected ${expected} bytes for ${showShape(shape)}, received ${bytes.length}`)
  }
  // A copy: a view would keep the header, or a shared pool of small buffers, alive and in the way of a
  // transfer.
  return { shape, data: new Uint8Array(bytes.subarray(headerLength)) }
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, '0')
}
