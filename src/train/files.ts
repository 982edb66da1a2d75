/** Files that are there whole, or not at all (Node). */
import { randomUUID } from 'node:crypto'
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { getSystemErrorMessage } from 'node:util'
import { FoveaError } from '../util/errors.ts'

/**
 * Writes a file so that a crash, a full disk or a power cut leaves either the previous content or the new
 * one. The folder must exist. Rejects with a `FoveaError` that gives the system's reason; nothing is left
 * behind then.
 */
export async function writeFileAtomic(path: string, content: Uint8Array | string): Promise<void> {
  const folder = dirname(path)
  // Within the folder, because a rename does not cross file systems.
  const temporary = join(folder, `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`)
  try {
    await written(await open(temporary, 'wx'), async file => {
      await file.writeFile(content)
      await file.sync()
    })
    await rename(temporary, path)
    // The rename is on the disk only when the folder is. Windows cannot open folders, and needs no such step.
    if (process.platform !== 'win32') await written(await open(folder), handle => handle.sync())
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw new FoveaError(`cannot write ${path}: ${reasonOf(error)}`, { cause: error })
  }
}

/**
 * Removes what {@link writeFileAtomic} leaves of `path` when its process is killed at work. No other may be
 * writing it.
 */
export async function removeUnfinished(path: string): Promise<void> {
  const folder = dirname(path)
  for (const name of await readdir(folder))
    if (name.startsWith(`.${basename(path)}.`) && name.endsWith('.tmp'))
      await rm(join(folder, name), { force: true })
}

async function written(file: FileHandle, work: (file: FileHandle) => Promise<void>): Promise<void> {
  try {
    await work(file)
  } finally {
    await file.close()
  }
}

/** `no space left on device (ENOSPC)` */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { errno, code } = error as NodeJS.ErrnoException
  return errno === undefined ? error.message : `${getSystemErrorMessage(errno)} (${code})`
}
