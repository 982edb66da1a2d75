/** Fetches published files into the cache from the first addresses that have them. */
import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { FoveaError } from '../util/errors.ts'
import { withPartial } from './cache.ts'
import type { LoadOptions } from './data-set.ts'
import { download, probe, reasonOf } from './download.ts'
import { UnreadableFile } from './stored-file.ts'

const CONNECT_TIMEOUT = 4_000
const IDLE_TIMEOUT = 10_000

/** A file as it is published. */
export interface PublishedFile<T> {
  /** The end of its address, and its name in the cache. */
  readonly name: string
  /** Reads a copy of it; undefined where that is not the published file. Rejects where it cannot be read. */
  readonly read: (path: string) => Promise<T | undefined>
}

export interface FetchedFiles<T> {
  /** One a file; undefined where no mirror had it. */
  readonly contents: readonly (T | undefined)[]
  /** The base addresses that something came from. */
  readonly used: readonly string[]
  /** The base addresses that failed, each with the reason. */
  readonly failures: readonly string[]
  /** Why the cache did not take what was fetched. */
  readonly notCached: string | undefined
}

/**
 * Fetches `files` from `bases`, each file from the first base that has it, and keeps them in the folder
 * `cache`. Stops at the first file that none has.
 *
 * @param bases base addresses that end with a slash
 * @throws UnreadableFile where what was downloaded cannot be read; it stays, and the next attempt takes it up
 */
export async function fetchFromMirrors<T>(
  files: readonly PublishedFile<T>[],
  bases: readonly string[],
  cache: string,
  options: LoadOptions,
): Promise<FetchedFiles<T>> {
  const over = new AbortController()
  // All are asked at once, so that a machine without a network waits for one timeout, not for one a mirror.
  const mirrors = bases.map(base => ({
    base,
    reason: probe(`${base}${files[0]?.name}`, options.connectTimeout ?? CONNECT_TIMEOUT, over.signal),
    used: false,
  }))
  const contents: (T | undefined)[] = files.map(() => undefined)
  const reasons = new Map<string, string>()
  let notCached: string | undefined
  try {
    for (const [i, file] of files.entries()) {
      for (const mirror of mirrors) {
        if (reasons.has(mirror.base)) continue
        try {
          const silent = await mirror.reason
          if (silent !== undefined) throw new FoveaError(silent)
          const fetched = await fetchFile(mirror.base + file.name, file, cache, options)
          contents[i] = fetched.content
          notCached ??= fetched.notCached
          mirror.used = true
          break
        } catch (error) {
          // The disk's fault, not the mirror's: another one would only write over what is there.
          if (error instanceof UnreadableFile) throw error
          reasons.set(mirror.base, reasonOf(error))
        }
      }
      if (contents[i] === undefined) break
    }
  } finally {
    over.abort()
  }
  const used = mirrors.filter(mirror => mirror.used).map(({ base }) => base)
  const failures = [...reasons].map(([base, reason]) => `${base} (${reason})`)
  return { contents, used, failures, notCached }
}

/**
 * Downloads one file into the cache, unless an earlier attempt left all of it. A wrong checksum after a
 * resumed download gets one fresh try.
 */
async function fetchFile<T>(
  url: string,
  { name, read }: PublishedFile<T>,
  cache: string,
  options: LoadOptions,
): Promise<{ content: T; notCached?: string }> {
  const progress = (received: number, total: number | undefined) =>
    options.progress?.({ phase: 'download', file: name, received, total, url })
  let content: T | undefined
  const fill = async (partial: string): Promise<void> => {
    for (;;) {
      const start = await stat(partial).then(
        ({ size }) => size,
        () => 0,
      )
      if (start > 0) content = await read(partial)
      if (content !== undefined) return
      await download(url, partial, { idleTimeout: options.idleTimeout ?? IDLE_TIMEOUT, progress })
      content = await read(partial)
      if (content !== undefined) return
      await rm(partial, { force: true })
      if (start === 0) throw new FoveaError(`${name}: wrong checksum`)
    }
  }
  try {
    await withPartial(cache, name, fill)
    return { content: content! }
  } catch (error) {
    // The name by which the partial file is left for the next attempt.
    if (error instanceof UnreadableFile) throw new UnreadableFile(`${join(cache, name)}.partial`, error.code)
    if (content === undefined) throw error
    return { content, notCached: reasonOf(error) }
  }
}
