/** Reads one IDX file from a folder, decompressed, and says whether it is the published one. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { FoveaError } from '../util/errors.ts'
import type { NamedBytes } from './idx.ts'

/** A published IDX file. */
export interface IdxFile {
  /** Its name, without `.gz`. */
  readonly name: string
  /** MD5 of the published .gz file; counts where there is no SHA-256. */
  readonly md5?: string
  /** SHA-256 of the decompressed file, which holds for a copy that was compressed anew (as Debian's). */
  readonly sha256?: string
}

export interface IdxContent extends NamedBytes {
  /** `unknown`: no checksum that would apply is known. */
  readonly state: 'published' | 'different' | 'unknown'
}

/** Reads `folder/NAME.gz`, or `folder/NAME` where there is none; a text says that there is neither. */
export async function readIdxFile(folder: string, file: IdxFile): Promise<IdxContent | string> {
  for (const compressed of [true, false]) {
    const path = join(folder, compressed ? `${file.name}.gz` : file.name)
    try {
      return await readStoredFile(path, file, compressed)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || code === 'ENOTDIR') continue
      if (code !== undefined) throw new FoveaError(`${path} cannot be read: ${code}`)
      throw error
    }
  }
  return `no ${file.name}.gz`
}

export async function readStoredFile(path: string, file: IdxFile, compressed: boolean): Promise<IdxContent> {
  const stored = await readFile(path)
  const bytes = compressed ? await decompress(path, stored) : stored
  return { file: path, bytes, state: compare(file, compressed ? stored : undefined, bytes) }
}

async function decompress(path: string, stored: Uint8Array): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(stored)
  } catch (error) {
    throw new FoveaError(`${path}: not a whole gzip file (${(error as Error).message})`)
  }
}

function compare(file: IdxFile, stored: Uint8Array | undefined, bytes: Uint8Array): IdxContent['state'] {
  const { md5, sha256 } = file
  // MD5 detects damage, not a forged file, and mirrors may be plain HTTP.
  if (sha256 !== undefined) return digest('sha256', bytes) === sha256 ? 'published' : 'different'
  if (stored === undefined || md5 === undefined) return 'unknown'
  return digest('md5', stored) === md5 ? 'published' : 'different'
}

function digest(algorithm: 'md5' | 'sha256', bytes: Uint8Array): string {
  return createHash(algorithm).update(bytes).digest('hex')
}
