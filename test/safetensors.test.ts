import { execFileSync } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { writeFileAtomic } from '../src/train/files.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import { arrayTypes, type DType, type HostTensor, hostTensor, sizeOf } from '../src/util/host-tensor.ts'
import { decodeSafetensors, encodeSafetensors } from '../src/weights/safetensors.ts'

const name = fc.string({ unit: 'binary', maxLength: 8 }).filter(name => name !== '__metadata__')
const texts = fc.dictionary(name, fc.string({ unit: 'binary', maxLength: 8 }), { noNullPrototype: true })
const tensor: fc.Arbitrary<HostTensor> = fc
  .tuple(fc.constantFrom(...(Object.keys(arrayTypes) as DType[])), fc.array(fc.nat(3), { maxLength: 3 }))
  .chain(([dtype, shape]) => {
    const size = { minLength: sizeOf(shape), maxLength: sizeOf(shape) }
    const values = fc.array(dtype === 'bool' ? fc.nat(1) : fc.nat(255), size)
    return values.map(values => hostTensor(dtype, shape, values))
  })

/** A file of this header, followed by as many bytes of values. */
function file(header: unknown, values: number): Uint8Array {
  const text = typeof header === 'string' ? header : JSON.stringify(header)
  const bytes = new Uint8Array(8 + text.length + values)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true)
  bytes.set(new TextEncoder().encode(text), 8)
  return bytes
}

describe('safetensors', () => {
  test('any tensors survive', () => {
    fc.assert(
      fc.property(fc.dictionary(name, tensor, { noNullPrototype: true }), texts, (tensors, metadata) => {
        const bytes = encodeSafetensors(tensors, metadata)
        expect(new DataView(bytes.buffer).getUint32(0, true) % 8).toBe(0)
        expect(decodeSafetensors(bytes, 'a')).toStrictEqual({ tensors, metadata })
        const reversed = Object.fromEntries(Object.entries(tensors).reverse())
        expect(encodeSafetensors(reversed, metadata)).toStrictEqual(bytes)
      }),
    )
  })

  test('reads from the middle of a buffer', () => {
    const tensors = { w: hostTensor('float32', [2], [1, 2]) }
    const padded = Buffer.of(1, 2, 3, ...encodeSafetensors(tensors, {}))
    expect(decodeSafetensors(padded.subarray(3), 'a').tensors).toStrictEqual(tensors)
  })

  test('any damage is a FoveaError, or another file', () => {
    const sound = encodeSafetensors(
      { a: hostTensor('float32', [2], [1, 2]), b: hostTensor('bool', [1], [1]) },
      {},
    )
    const attempt = (bytes: Uint8Array) => {
      try {
        decodeSafetensors(bytes, 'a')
        return true
      } catch (error) {
        expect(error).toBeInstanceOf(FoveaError)
        return false
      }
    }
    for (let length = 0; length < sound.length; length++)
      expect(attempt(sound.subarray(0, length))).toBe(false)
    fc.assert(
      fc.property(fc.nat(sound.length - 1), fc.nat(255), (at, byte) => {
        const damaged = sound.slice()
        damaged[at] = byte
        attempt(damaged)
      }),
    )
  })

  const f32 = (shape: unknown, span: unknown) => ({ dtype: 'F32', shape, data_offsets: span })
  const wrong: [string, Uint8Array][] = [
    ['empty', new Uint8Array(0)],
    ['header beyond the end', file('{}', 0).subarray(0, 9)],
    ['huge header', new Uint8Array(16).fill(255)],
    ['no JSON', file('{"a":', 0)],
    ['no object', file('[]', 0)],
    ['unknown dtype', file({ a: { dtype: 'F8_E4M3', shape: [1], data_offsets: [0, 1] } }, 1)],
    ['negative extent', file({ a: f32([-1], [0, 4]) }, 4)],
    ['no shape', file({ a: f32(undefined, [0, 4]) }, 4)],
    ['no offsets', file({ a: f32([1], [0]) }, 4)],
    ['offsets out of range', file({ a: f32([2], [0, 8]) }, 4)],
    ['offsets reversed', file({ a: f32([1], [4, 0]) }, 4)],
    ['size', file({ a: f32([2], [0, 4]) }, 4)],
    ['overlap', file({ a: f32([2], [0, 8]), b: f32([1], [4, 8]) }, 8)],
    ['hole', file({ a: f32([1], [0, 4]), b: f32([1], [8, 12]) }, 12)],
    ['bytes left over', file({ a: f32([1], [0, 4]) }, 5)],
    [
      'bad truth value',
      Uint8Array.of(...file({ a: { dtype: 'BOOL', shape: [1], data_offsets: [0, 1] } }, 0), 2),
    ],
    ['metadata', file({ __metadata__: { epoch: 1 } }, 0)],
  ]
  test('says what is wrong, and where', () => {
    const messages = wrong.map(([what, bytes]) => {
      try {
        decodeSafetensors(bytes, 'best.safetensors')
        return `${what}: nothing is wrong`
      } catch (error) {
        expect(error).toBeInstanceOf(FoveaError)
        return (error as Error).message.replace(': the file is damaged, or not a safetensors file', ' ...')
      }
    })
    expect(messages).toMatchInlineSnapshot(`
      [
        "best.safetensors: expected at least 8 bytes, received 0 ...",
        "best.safetensors: expected a header of 2 bytes, received 1 ...",
        "best.safetensors: a header of 18446744073709551615 bytes is too long ...",
        "best.safetensors: the header is not a JSON object ...",
        "best.safetensors: the header is not a JSON object ...",
        "best.safetensors: "a": expected a dtype of F64, I64, F32, I32, U32, U8, BOOL, F16, BF16, received "F8_E4M3"",
        "best.safetensors: "a": [-1] is no shape ...",
        "best.safetensors: "a": undefined is no shape ...",
        "best.safetensors: "a": data_offsets are [0] ...",
        "best.safetensors: "a": bytes 0 to 8 are not within the 4 bytes of values ...",
        "best.safetensors: "a": bytes 4 to 0 are not within the 4 bytes of values ...",
        "best.safetensors: "a": F32 [2] takes 8 bytes, received 4 ...",
        "best.safetensors: "b" overlaps another tensor ...",
        "best.safetensors: 4 bytes before "b" belong to no tensor ...",
        "best.safetensors: 1 bytes at the end belong to no tensor ...",
        "best.safetensors: "a": a BOOL is neither 0 nor 1 ...",
        "best.safetensors: __metadata__ is not an object of texts ...",
      ]
    `)
    const short = { ...hostTensor('float32', [2], [1, 2]), shape: [3] }
    expect(() => encodeSafetensors({ w: short }, {})).toThrow(UsageError)
    expect(() => encodeSafetensors({ __metadata__: short }, {})).toThrow(UsageError)
  })
})

describe('writeFileAtomic', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fovea-files-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  test('writes bytes and texts, replaces, and leaves only the file', async () => {
    const path = join(folder, 'state.bin')
    await writeFileAtomic(path, Uint8Array.of(1, 2, 3))
    expect([...(await readFile(path))]).toEqual([1, 2, 3])
    await writeFileAtomic(path, 'é')
    expect(await readFile(path, 'utf8')).toBe('é')
    expect(await readdir(folder)).toEqual(['state.bin'])
  })

  test('says why it failed, and leaves what was there', async () => {
    const lost = join(folder, 'nowhere', 'state.bin')
    await expect(writeFileAtomic(lost, 'x')).rejects.toThrow(
      new FoveaError(`cannot write ${lost}: no such file or directory (ENOENT)`),
    )
    // A folder in the file's place: the rename fails after everything was written.
    await expect(writeFileAtomic(folder, 'x')).rejects.toThrow(/^cannot write .*\(E\w+\)$/)
    expect(await readdir(folder)).toEqual([])
  })

  test.skipIf(process.getuid?.() === 0)('a folder that is not writable', async () => {
    await writeFile(join(folder, 'state.bin'), 'before')
    await chmod(folder, 0o555)
    await expect(writeFileAtomic(join(folder, 'state.bin'), 'x')).rejects.toThrow(
      'permission denied (EACCES)',
    )
    await chmod(folder, 0o755)
    expect(await readFile(join(folder, 'state.bin'), 'utf8')).toBe('before')
  })

  test.skipIf(process.platform === 'win32')('a write that stops half-way, as on a full disk', async () => {
    const path = join(folder, 'state.bin')
    await writeFile(path, 'before')
    const source = `import { writeFileAtomic } from ${JSON.stringify(new URL('../src/train/files.ts', import.meta.url))}
      await writeFileAtomic(process.argv[1], new Uint8Array(1_000_000)).catch(error => console.log(error.message))`
    // The system then refuses to let a file grow beyond 64 blocks of 512 or 1024 bytes.
    const limited = 'ulimit -f 64; exec "$@"'
    const node = [process.execPath, '--input-type=module', '-e', source, path]
    const output = execFileSync('sh', ['-c', limited, 'sh', ...node], { encoding: 'utf8' })
    expect(output).toBe(`cannot write ${path}: file too large (EFBIG)\n`)
    expect(await readFile(path, 'utf8')).toBe('before')
    expect(await readdir(folder)).toEqual(['state.bin'])
  })
})
