import { describe, expect, test } from 'vitest'
import { encodeIdx, parseIdxImages, parseIdxLabels, parseLabelledImages } from '../src/data/idx.ts'
import { FoveaError } from '../src/util/errors.ts'

const images = encodeIdx(
  [2, 2, 3],
  Uint8Array.from({ length: 12 }, (_, i) => 20 * i),
)
const labels = encodeIdx([2], Uint8Array.of(1, 0))

function patched(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice()
  copy.set(values, at)
  return copy
}

describe('IDX', () => {
  test('reads what it writes', () => {
    const parsed = parseLabelledImages(
      { file: 'images', bytes: images },
      { file: 'labels', bytes: labels },
      2,
    )
    expect(parsed.count).toBe(2)
    expect(parsed.images).toEqual({
      dtype: 'uint8',
      shape: [2, 2, 3, 1],
      data: Uint8Array.of(0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200, 220),
    })
    expect(parsed.labels).toEqual({ dtype: 'int32', shape: [2], data: Int32Array.of(1, 0) })
  })

  test('the bytes are those of the published format', () => {
    expect(Array.from(images.subarray(0, 16))).toEqual([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3])
  })

  test('the values own their memory, also when read from the middle of a buffer', () => {
    const pool = new Uint8Array(100)
    pool.set(images, 7)
    const { data } = parseIdxImages({ file: 'f', bytes: pool.subarray(7, 7 + images.length) })
    pool.fill(0)
    expect(data[11]).toBe(220)
    expect(data.buffer.byteLength).toBe(12)
  })

  const gzip = Uint8Array.of(0x1f, 0x8b, 8, 0)
  test.each([
    ['empty', new Uint8Array(0), 'f: truncated: expected 4 bytes of IDX header, received 0 bytes in all'],
    [
      'header cut',
      images.subarray(0, 10),
      'f: truncated: expected 16 bytes of IDX header, received 10 bytes in all',
    ],
    [
      'gzip',
      gzip,
      'f: not an IDX file: expected it to begin with 00 00, received 1f 8b (gzip: decompress it first)',
    ],
    [
      'text',
      new TextEncoder().encode('<html>'),
      'f: not an IDX file: expected it to begin with 00 00, received 3c 68',
    ],
    [
      'floats',
      patched(images, 2, 13),
      'f: expected IDX type 08 (unsigned bytes), received 0d (32-bit floats)',
    ],
    ['no type', patched(images, 2, 0x77), 'f: expected IDX type 08 (unsigned bytes), received 77'],
    [
      '4 dimensions',
      encodeIdx([2, 2, 3, 1], new Uint8Array(12)),
      'f: expected 3 dimensions (images), received 4',
    ],
    ['labels for images', labels, 'f: expected 3 dimensions (images), received 1: these are labels'],
    ['values cut', images.subarray(0, 27), 'f: truncated: expected 28 bytes for [2, 2, 3], received 27'],
    [
      'trailing bytes',
      patched(new Uint8Array(30), 0, ...images),
      'f: trailing bytes: expected 28 bytes for [2, 2, 3], received 30',
    ],
    ['no image', encodeIdx([0, 2, 3], new Uint8Array(0)), 'f: holds nothing: its shape is [0, 2, 3]'],
  ])('images, %s', (_name, bytes, message) => {
    expect(() => parseIdxImages({ file: 'f', bytes })).toThrow(new FoveaError(message))
  })

  test.each([
    ['images for labels', images, 'f: expected 1 dimension (labels), received 3: these are images'],
    [
      'no class',
      encodeIdx([3], Uint8Array.of(9, 10, 11)),
      'f: label 10 at position 1 is no class: expected 0 .. 9',
    ],
  ])('labels, %s', (_name, bytes, message) => {
    expect(() => parseIdxLabels({ file: 'f', bytes }, 10)).toThrow(new FoveaError(message))
  })

  test('the counts of a pair must agree', () => {
    const three = encodeIdx([3], Uint8Array.of(0, 1, 1))
    expect(() =>
      parseLabelledImages({ file: 'a/images', bytes: images }, { file: 'a/labels', bytes: three }, 2),
    ).toThrow(
      new FoveaError('a/images holds 2 images, but a/labels holds 3 labels: expected one label an image'),
    )
  })

  test('encoding refuses a wrong number of values', () => {
    expect(() => encodeIdx([2, 2], new Uint8Array(5))).toThrow('IDX [2, 2]: expected 4 values, received 5')
  })
})
