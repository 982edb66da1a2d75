/** The folders that runs are kept in. */
import { mkdir, rmdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { makeFolder } from '../data/make-folder.ts'
import { type Checkpoint, checkpointIn, loadCheckpoint } from '../train/checkpoint.ts'
import { FoveaError } from '../util/errors.ts'

/** Makes a new folder of that path, or of the first of `PATH_2`, `PATH_3` ... that does not exist yet. */
export async function newFolder(path: string): Promise<string> {
  await makeFolder(dirname(path))
  try {
    for (let number = 1; ; number++) {
      const candidate = number === 1 ? path : `${path}_${number}`
      // Making it claims it: another process that asks at the same time gets the next number.
      if (await mkdir(candidate).then(() => true, unlessExists)) return candidate
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw new FoveaError(`${path}: the folder cannot be made (${code ?? message})`)
  }
}

function unlessExists(error: NodeJS.ErrnoException): false {
  if (error.code === 'EEXIST') return false
  throw error
}

/** Works in a new folder, which is taken away again where nothing was written into it. */
export async function inNewFolder<T>(path: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await newFolder(path)
  try {
    return await work(folder)
  } catch (error) {
    await rmdir(folder).catch(() => {})
    throw error
  }
}

/**
 * Works in a folder that a person named; where it is new, it too is taken away again where nothing was
 * written into it.
 */
export async function inFolder<T>(folder: string, work: (folder: string) => Promise<T>): Promise<T> {
  const isNew = await stat(folder).then(
    () => false,
    () => true,
  )
  try {
    return await work(folder)
  } catch (error) {
    if (isNew) await rmdir(folder).catch(() => {})
    throw error
  }
}

/** The checkpoint of a run's folder. */
export async function openRun(folder: string): Promise<Checkpoint> {
  return await loadCheckpoint(checkpointIn(folder))
}
