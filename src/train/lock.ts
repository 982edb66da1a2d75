/** One process at a time on a folder (Node). */
import { randomUUID } from 'node:crypto'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { FoveaError, UsageError } from '../util/errors.ts'
import { reasonOf } from './files.ts'

const holderSchema = z.object({ pid: z.int().positive(), host: z.string() })

/**
 * What this process has or wants. A lock with its pid that is not among these is of another that had the pid
 * before it.
 */
const held = new Set<string>()

/**
 * Does `work` while the file `path` says that this process is at it. The folder must exist. What a process
 * that is gone has left, as after `kill -9`, is taken over.
 *
 * @param place what is locked, for the error's text
 * @throws UsageError where another process is at work, or one of another machine has not taken its lock away;
 *   FoveaError where the lock cannot be written
 */
export async function withLock<T>(path: string, place: string, work: () => Promise<T>): Promise<T> {
  if (held.has(path)) throw atWork(place, process.pid)
  held.add(path)
  try {
    await acquire(path, place).catch((error: unknown) => {
      throw error instanceof FoveaError
        ? error
        : new FoveaError(`cannot write ${path}: ${reasonOf(error)}`, { cause: error })
    })
    try {
      return await work()
    } finally {
      await rm(path, { force: true })
    }
  } finally {
    held.delete(path)
  }
}

async function acquire(path: string, place: string): Promise<void> {
  const mine = `${JSON.stringify({ pid: process.pid, host: hostname(), id: randomUUID() })}\n`
  for (;;) {
    if (await writeFile(path, mine, { flag: 'wx' }).then(() => true, unless('EEXIST'))) return
    const text = await content(path)
    if (text === undefined) continue
    const holder = holderOf(text)
    if (holder && holder.host !== hostname())
      throw new UsageError(
        `${place}: process ${holder.pid} on ${holder.host} is at work there; if it is not, remove ${path}`,
      )
    if (holder && isAlive(holder.pid)) throw atWork(place, holder.pid)
    await takeAway(path, text)
  }
}

function atWork(place: string, pid: number): UsageError {
  return new UsageError(`${place}: process ${pid} is at work there; wait until it has ended`)
}

/** What a lock says, undefined once it is gone; its process may be about to write it. */
async function content(path: string): Promise<string | undefined> {
  for (let attempt = 0; ; attempt++) {
    const text = await readFile(path, 'utf8').catch(unless('ENOENT'))
    if (text === false) return undefined
    if (text.endsWith('\n') || attempt === 10) return text
    await wait(20)
  }
}

function holderOf(text: string): z.infer<typeof holderSchema> | undefined {
  try {
    return holderSchema.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  if (pid === process.pid) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/**
 * Removes a stale lock. One process at a time may, so that none removes what another has just put in its
 * place.
 */
async function takeAway(path: string, stale: string): Promise<void> {
  const guard = `${path}.takeover`
  if (!(await writeFile(guard, '', { flag: 'wx' }).then(() => true, unless('EEXIST')))) {
    const made = await stat(guard).catch(unless('ENOENT'))
    // It is there for a moment only, unless its process was killed in it.
    if (made && Date.now() - made.mtimeMs > 10_000) await rm(guard, { force: true })
    else await wait(20)
    return
  }
  try {
    if ((await readFile(path, 'utf8').catch(unless('ENOENT'))) === stale) await rm(path)
  } finally {
    await rm(guard, { force: true })
  }
}

/** For `catch`: false for an error of that code, and any other thrown on. */
function unless(code: string): (error: NodeJS.ErrnoException) => false {
  return error => {
    if (error.code === code) return false
    throw error
  }
}
