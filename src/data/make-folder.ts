/** Folders for what is kept (Node). */
import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { getSystemErrorMessage } from 'node:util'
import { FoveaError } from '../util/errors.ts'

/**
 * Makes a folder and those above it; one that exists is left alone. Node's own recursive mkdir never returns
 * where a file system answers "no such file" for a folder that it will not have made, as Linux's /proc does.
 *
 * @throws FoveaError with the system's reason
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdirWithParents(path)
  } catch (error) {
    const { errno, code, message } = error as NodeJS.ErrnoException
    const reason = errno === undefined ? message : `${getSystemErrorMessage(errno)} (${code})`
    throw new FoveaError(`${path}: the folder cannot be made: ${reason}`, { cause: error })
  }
}

async function mkdirWithParents(path: string): Promise<void> {
  const reason = await refusal(path)
  if (reason?.code !== 'ENOENT' || dirname(path) === path) {
    if (reason) throw reason
    return
  }
  if (!(await isFolder(dirname(path)))) await mkdirWithParents(dirname(path))
  // Again, even where the parent was there: another process may have made it since.
  const again = await refusal(path)
  if (again) throw again
}

/** Why a folder could not be made; undefined where it is there now. */
async function refusal(path: string): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(path)
  } catch (error) {
    const reason = error as NodeJS.ErrnoException
    return reason.code === 'EEXIST' && (await isFolder(path)) ? undefined : reason
  }
  return undefined
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    found => found.isDirectory(),
    () => false,
  )
}
