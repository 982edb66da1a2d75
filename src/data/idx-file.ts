/** Reads one IDX file from a folder, decompressed, and says whether it is the published one. */
import { join } from 'node:path'
import type { NamedBytes } from './idx.ts'
import { digest, gunzipStored, readStored } from './stored-file.ts'

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

/**
 * Reads `folder/NAME.gz`, or `folder/NAME` where there is none; a text says that there is neither.
 *
 * @throws UnreadableFile; FoveaError for a damaged gzip file
 */
export async function readIdxFile(folder: string, file: IdxFile): Promise<IdxContent | string> {
  const found =
    (await readStoredFile(join(folder, `${file.name}.gz`), file, true)) ??
    (await readStoredFile(join(folder, file.name), file, false))
  return found ?? `no ${file.name}.gz`
}

/** Reads the file at `path`, whatever its name; undefined where there is none. */
export async function readStoredFile(
  path: string,
  file: IdxFile,
  compressed: boolean,
): Promise<IdxContent | undefined> {
  const stored = await readStored(path)
  if (stored === undefined) return undefined
  const bytes = compressed ? await gunzipStored({ file: path, bytes: stored }) : stored
  return { file: path, bytes, state: compare(file, compressed ? stored : undefined, bytes) }
}

function compare(file: IdxFile, stored: Uint8Array | undefined, bytes: Uint8Array): IdxContent['state'] {
  const { md5, sha256 } = file
  // MD5 detects damage, not a forged file, and mirrors may be plain HTTP.
  if (sha256 !== undefined) return digest('sha256', bytes) === sha256 ? 'published' : 'different'
  if (stored === undefined || md5 === undefined) return 'unknown'
  return digest('md5', stored) === md5 ? 'published' : 'different'
}
