/** Folders for what is kept (Node). */
import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { getSystemErrorMessage } from 'node:util'
import { FoveaError } from '../util/errors.ts'

/**
 * Makes a folder and those above it; one that exists is left alone. Node's own recursive mkdir never returns where a file
 * system answers "no such file" for a folder that it will not have made, as Linux's /proc does.
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
  try {
    await mkdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' && (await isFolder(path))) return
    const parent = dirname(path)
    if (code !== 'ENOENT' || parent === path || (await isFolder(parent))) throw error
    await mkdirWithParents(parent)
    await mkdir(path).catch(async (again: NodeJS.ErrnoException) => {
      if (again.code !== 'EEXIST' || !(await isFolder(path))) throw again
    })
  }
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    found => found.isDirectory(),
    () => false,
  )
}
