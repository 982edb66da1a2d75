/** Downloads over HTTP that continue where they were cut, and give up soon where nobody answers. */
import { type FileHandle, open, stat, truncate } from 'node:fs/promises'
import { FoveaError } from '../util/errors.ts'

export interface DownloadOptions {
  /** Milliseconds without a byte (or an answer) after which the connection counts as lost. */
  readonly idleTimeout: number
  /** Called with the bytes received so far and their total, where the server tells it. */
  readonly progress?: (received: number, total: number | undefined) => void
}

/** A connection that is cut is taken up again this often, as long as each attempt brings something. */
const ATTEMPTS = 5

/**
 * Downloads `url` into the file `partial`, which may hold the beginning from an earlier attempt: the rest is
 * asked for by an HTTP range (RFC 9110, section 14), and a server that ignores it starts the file anew. On
 * failure what arrived stays in `partial`.
 * @throws FoveaError with a brief reason.
 */
export async function download(url: string, partial: string, options: DownloadOptions): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const before = await sizeOfFile(partial)
    try {
      return await downloadOnce(url, partial, before, options)
    } catch (error) {
      const advanced = (await sizeOfFile(partial)) > before
      if (attempt === ATTEMPTS || !advanced) throw new FoveaError(reasonOf(error), { cause: error })
    }
  }
}

/**
 * Whether anything answers at `url` within `timeout` milliseconds: undefined, or the reason why not. Never
 * rejects.
 */
export async function probe(url: string, timeout: number, signal: AbortSignal): Promise<string | undefined> {
  try {
    await fetch(url, { method: 'HEAD', signal: AbortSignal.any([signal, AbortSignal.timeout(timeout)]) })
    return undefined
  } catch (error) {
    return isTimeout(error) ? `no answer within ${timeout / 1000} s` : reasonOf(error)
  }
}

/** A brief text for an error of the network or of the file system: `ENOTFOUND`, `HTTP 404 Not Found`. */
export function reasonOf(error: unknown): string {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code, path } = at as NodeJS.ErrnoException
    if (typeof code === 'string') return path === undefined ? code : `${code} at ${path}`
    if (at.cause === undefined) return at.message
  }
  return String(error)
}

async function downloadOnce(url: string, partial: string, start: number, options: DownloadOptions) {
  const abort = new AbortController()
  const lost = () => abort.abort(new FoveaError(`no data for ${options.idleTimeout / 1000} s`))
  const watchdog = setTimeout(lost, options.idleTimeout)
  let file: FileHandle | undefined
  try {
    // The checksum is of the stored bytes: a compression added on the way would change them.
    const headers: Record<string, string> = { 'accept-encoding': 'identity' }
    if (start > 0) headers.range = `bytes=${start}-`
    const response = await fetch(url, { headers, signal: abort.signal })
    if (response.status === 416 && start > 0) {
      // What we hold is as long as the file, or longer: it can only be a wrong one.
      await response.body?.cancel()
      await truncate(partial, 0)
      return await downloadOnce(url, partial, 0, options)
    }
    if (!response.ok || response.body === null)
      throw new FoveaError(`HTTP ${response.status} ${response.statusText}`.trimEnd())
    const resumed = response.status === 206
    if (resumed && rangeStart(response) !== start)
      throw new FoveaError(`answered the range from byte ${start} with "${contentRange(response)}"`)
    file = await open(partial, resumed ? 'a' : 'w')
    let received = resumed ? start : 0
    const total = totalOf(response, received)
    for await (const chunk of response.body) {
      watchdog.refresh()
      await file.writeFile(chunk)
      received += chunk.byteLength
      options.progress?.(received, total)
    }
    if (total !== undefined && received !== total)
      throw new FoveaError(`cut after ${received} of ${total} bytes`)
  } finally {
    clearTimeout(watchdog)
    await file?.close()
    abort.abort()
  }
}

function contentRange(response: Response): string {
  return response.headers.get('content-range') ?? ''
}

function rangeStart(response: Response): number | undefined {
  const match = /^bytes (\d+)-/.exec(contentRange(response))
  return match === null ? undefined : Number(match[1])
}

function totalOf(response: Response, start: number): number | undefined {
  const length = response.headers.get('content-length')
  // A server that compresses although asked not to states the compressed length.
  if (length === null || response.headers.has('content-encoding')) return undefined
  return start + Number(length)
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.name === 'TimeoutError'
}

async function sizeOfFile(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch {
    return 0
  }
}
