/**
 * Reads tar archives (POSIX.1-2017, pax, "ustar Interchange Format"): records of 512 bytes, one header a
 * file, then its bytes. Strict: nothing is repaired, and only plain files and folders are known.
 */
import { FoveaError } from '../util/errors.ts'
import type { NamedBytes } from './idx.ts'

const RECORD = 512
const CHECKSUM = { start: 148, length: 8 }

/**
 * The plain files of an archive by their paths, as `folder/file`; each shares the archive's memory.
 *
 * @throws FoveaError naming the file, where a header or an end is missing, a checksum does not hold, or an
 *   entry is a link,
 *   a device, or lies outside the archive's folder
 */
export function readTar({ file, bytes }: NamedBytes): Map<string, Uint8Array> {
  const found = new Map<string, Uint8Array>()
  for (let at = 0; ; ) {
    if (at + RECORD > bytes.length)
      throw new FoveaError(
        `${file}: truncated: expected ${RECORD} bytes of tar header or end mark at byte ${at}, received ${bytes.length - at}`,
      )
    const header = bytes.subarray(at, at + RECORD)
    if (header.every(byte => byte === 0)) return found
    const fail = (text: string) => new FoveaError(`${file}: tar header at byte ${at}: ${text}`)
    checkSum(header, fail)
    const path = pathOf(header, fail)
    const size = octal(header, 124, 12, 'a size', fail)
    const start = at + RECORD
    if (start + size > bytes.length)
      throw new FoveaError(
        `${file}: truncated: expected ${size} bytes of ${path} at byte ${start}, received ${bytes.length - start}`,
      )
    const content = bytes.subarray(start, start + size)
    switch (String.fromCharCode(header[156]!)) {
      case '0':
      case '\0':
        if (found.has(path)) throw fail(`expected each path once, received ${path} again`)
        found.set(path, content)
        break
      case '5':
        break
      case 'x':
      case 'g':
        // Times and owners do not matter here; a path or a size would replace what the next header says.
        if (/\d+ (path|size|linkpath)=/.test(text(content)))
          throw fail('expected paths and sizes in the headers, received an extended header with them')
        break
      default:
        throw fail(
          `expected a plain file or a folder, received type "${String.fromCharCode(header[156]!)}" (${path})`,
        )
    }
    at = start + Math.ceil(size / RECORD) * RECORD
  }
}

type Fail = (text: string) => FoveaError

/** The sum of the header's bytes, those of the sum itself counted as spaces. */
function checkSum(header: Uint8Array, fail: Fail): void {
  const end = CHECKSUM.start + CHECKSUM.length
  const sum = header.reduce((a, byte, i) => a + (i >= CHECKSUM.start && i < end ? 0x20 : byte), 0)
  const stated = octal(header, CHECKSUM.start, CHECKSUM.length, 'a checksum', fail)
  if (sum !== stated) throw fail(`expected the checksum ${stated}, received bytes that sum to ${sum}`)
}

function pathOf(header: Uint8Array, fail: Fail): string {
  // GNU's own format keeps other things where ustar has the path's beginning.
  const prefix = text(header.subarray(257, 263)) === 'ustar\0' ? field(header, 345, 155) : ''
  const name = field(header, 0, 100)
  const parts = (prefix === '' ? name : `${prefix}/${name}`).split('/')
  const path = parts.filter((part, i) => part !== '.' && (part !== '' || i === 0)).join('/')
  if (path.startsWith('/') || parts.includes('..'))
    throw fail(`expected a path within the archive's folder, received "${parts.join('/')}"`)
  return path
}

function octal(header: Uint8Array, start: number, length: number, what: string, fail: Fail): number {
  const digits = field(header, start, length).trim()
  if (!/^[0-7]+$/.test(digits))
    throw fail(`expected ${what} in octal digits, received ${JSON.stringify(digits)}`)
  return Number.parseInt(digits, 8)
}

/** A field's text up to its first zero byte. */
function field(header: Uint8Array, start: number, length: number): string {
  return text(header.subarray(start, start + length)).split('\0', 1)[0]!
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
