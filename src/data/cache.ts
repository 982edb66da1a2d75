/** The folder in which downloads are kept, safe for several processes at once. */
import { randomBytes } from 'node:crypto'
import { open, readdir, rename, rm, stat } from 'node:fs/promises'
import { homedir, hostname } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { makeFolder } from './make-folder.ts'

/**
 * `$XDG_CACHE_HOME/fovea`, by default `~/.cache/fovea` (XDG Base Directory Specification: relative paths are
 * ignored).
 */
export function defaultCacheDir(): string {
  const base = process.env.XDG_CACHE_HOME
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache'), 'fovea')
}

/**
 * Has `fill` write a partial file that no other process touches, and puts it in place as `folder/file`, whole
 * or not at all. An earlier attempt's partial is taken over, by an atomic rename, once its owner has given it
 * up or died; when `fill` throws, what it wrote is left for the next attempt. Processes at work at once each
 * fill their own.
 */
export async function withPartial(
  folder: string,
  file: string,
  fill: (partial: string) => Promise<void>,
): Promise<void> {
  await makeFolder(folder)
  const owned = join(folder, ownedName(file))
  await claim(folder, file, owned)
  try {
    await fill(owned)
    const handle = await open(owned, 'r+')
    await handle.sync().finally(() => handle.close())
    await rename(owned, join(folder, file))
  } catch (error) {
    await rename(owned, join(folder, `${file}.partial`)).catch(ignoreMissing)
    throw error
  }
}

/** The name says who owns the file, so that another process can tell whether the owner lives. */
function ownedName(file: string): string {
  return `${file}.partial-${hostname()}-${process.pid}-${randomBytes(4).toString('hex')}`
}

async function claim(folder: string, file: string, owned: string): Promise<void> {
  const free: { path: string; size: number }[] = []
  for (const name of await readdir(folder)) {
    if (!name.startsWith(`${file}.partial`)) continue
    const path = join(folder, name)
    const found = await stat(path).catch(ignoreMissing)
    if (found && isFree(name.slice(file.length), found.mtimeMs)) free.push({ path, size: found.size })
  }
  free.sort((a, b) => b.size - a.size)
  let claimed = false
  for (const { path } of free) {
    if (claimed) await rm(path, { force: true })
    else claimed = await rename(path, owned).then(() => true, ignoreMissing)
  }
}

const ABANDONED_AFTER = 24 * 3600 * 1000

function isFree(suffix: string, modified: number): boolean {
  const owner = /^\.partial-(.*)-(\d+)-[0-9a-f]+$/.exec(suffix)
  if (owner === null) return true
  // Another host's processes cannot be seen from here (a home folder on a network): only age tells.
  if (owner[1] !== hostname()) return Date.now() - modified > ABANDONED_AFTER
  try {
    process.kill(Number(owner[2]), 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

/** Another process may have taken or removed a file in the meantime. */
function ignoreMissing(error: NodeJS.ErrnoException): false {
  if (error.code === 'ENOENT') return false
  throw error
}
