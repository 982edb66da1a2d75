/** The files of data sets as they lie on a disk: read whole, decompressed within a bound, digested (Node). */
import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { FoveaError, UsageError } from '../util/errors.ts'
import type { NamedBytes } from './idx.ts'

/**
 * A file that is there but that the system will not read: nothing is known of its content, so it must be left
 * alone.
 */
export class UnreadableFile extends FoveaError {
  override name = 'UnreadableFile'
  /** The system's code, as `EACCES`. */
  readonly code: string

  constructor(path: string, code: string) {
    super(`${path}: cannot be read (${code})`)
    this.code = code
  }
}

/**
 * A file's bytes; undefined where there is none.
 *
 * @throws UnreadableFile with the system's code
 */
export async function readStored(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw new UnreadableFile(path, code ?? message)
  }
}

/**
 * Thrice the largest published file, decompressed: a few kilobytes of gzip may stand for any number of bytes.
 */
const MOST_BYTES = 512 * 2 ** 20
/** Sixty times Node's own: each chunk is a task of its thread pool, and 47 MB took 0.5 s in place of 0.2. */
const CHUNK_BYTES = 2 ** 20

/**
 * Decompresses a gzip file.
 *
 * @throws FoveaError naming a file that is damaged, cut, or would grow beyond 512 MiB
 */
export async function gunzipStored({ file, bytes }: NamedBytes): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: MOST_BYTES, chunkSize: CHUNK_BYTES })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ERR_BUFFER_TOO_LARGE')
      throw new FoveaError(`${file}: expected at most ${MOST_BYTES} bytes when decompressed, received more`)
    throw new FoveaError(`${file}: not a whole gzip file (${message})`)
  }
}

/** In lower-case hexadecimal; by Node's crypto, eight times as fast as JavaScript's. */
export function digest(algorithm: 'md5' | 'sha256', bytes: Uint8Array): string {
  return createHash(algorithm).update(bytes).digest('hex')
}

/**
 * Throws unless `folder` is a folder, so that a mistyped path is not taken for an empty one.
 *
 * @param name of the data set, for the message
 */
export async function checkFolder(name: string, folder: string): Promise<void> {
  const found = await stat(folder).catch(({ code }: NodeJS.ErrnoException) => {
    const missing = code === 'ENOENT' || code === 'ENOTDIR'
    throw new UsageError(`${name}: ${folder}: ${missing ? 'no such folder' : `cannot be read (${code})`}`)
  })
  if (!found.isDirectory()) throw new UsageError(`${name}: ${folder}: expected a folder, received a file`)
}
