/** Fetches a Debian package's files without installing it and without being root. */
import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { FoveaError } from '../util/errors.ts'

export interface AptProgress {
  readonly file: string
  readonly received: number
  readonly total: number
  readonly url: string
}

interface Located {
  readonly url: string
  readonly file: string
  readonly size: number
}

/**
 * Downloads package `name` by apt-get, which checks Debian's signature, unpacks it into a temporary folder,
 * and calls `use` with that folder. The system's package lists serve where they know the package and are
 * fresh enough; otherwise private ones are fetched. Writes nowhere but in the temporary folder, which is gone
 * afterwards.
 * @throws FoveaError with a brief reason.
 */
export async function withAptPackage<T>(
  name: string,
  use: (root: string) => Promise<T>,
  progress?: (event: AptProgress) => void,
): Promise<T> {
  const work = await mkdtemp(join(tmpdir(), 'fovea-apt-'))
  // Ctrl-C ends the process without coming back to `finally`.
  const removeAtExit = () => rmSync(work, { recursive: true, force: true })
  process.once('exit', removeAtExit)
  try {
    const deb = await downloadDeb(name, work, progress)
    const root = join(work, 'root')
    await run('dpkg-deb', ['-x', deb, root], work)
    return await use(root)
  } finally {
    await rm(work, { recursive: true, force: true })
    process.off('exit', removeAtExit)
  }
}

async function downloadDeb(name: string, work: string, progress?: (event: AptProgress) => void) {
  await mkdir(join(work, 'cache/archives/partial'), { recursive: true })
  await mkdir(join(work, 'lists/partial'), { recursive: true })
  const shared = [
    '-q',
    ...['-o', `Dir::Cache=${join(work, 'cache')}`],
    // Started by root, apt-get would drop to the user _apt, who cannot write into our folder.
    ...(process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : []),
    ...['-o', 'Acquire::Retries=0', '-o', 'Acquire::http::Timeout=8', '-o', 'Acquire::https::Timeout=8'],
  ]
  try {
    return await fetchDeb(name, work, shared, progress)
  } catch (error) {
    if (!isStale(error)) throw error
  }
  const own = [...shared, '-o', `Dir::State::Lists=${join(work, 'lists')}`]
  // One broken source among many fails the whole update; the others' lists are there all the same.
  const update = run('apt-get', [...own, '-o', 'Acquire::Languages=none', 'update'], work)
  const failure = await update.then(
    () => undefined,
    (error: Error) => error.message,
  )
  try {
    return await fetchDeb(name, work, own, progress)
  } catch (error) {
    throw failure === undefined ? error : new FoveaError(`apt-get update: ${failure}`)
  }
}

/** The package lists lack the package, or name a version that the server no longer has. */
function isStale(error: unknown): boolean {
  return /Unable to locate|no installation candidate|Can't find a source|404/.test((error as Error).message)
}

async function fetchDeb(
  name: string,
  work: string,
  options: readonly string[],
  progress?: (event: AptProgress) => void,
): Promise<string> {
  const { url, file, size } = locate(
    name,
    await run('apt-get', [...options, '--print-uris', 'download', name], work),
  )
  const path = join(work, file)
  const report = async () => {
    const received = await stat(path).then(
      found => found.size,
      () => 0,
    )
    progress?.({ file, received, total: size, url })
  }
  await report()
  const timer = setInterval(report, 200)
  try {
    await run('apt-get', [...options, 'download', name], work)
  } finally {
    clearInterval(timer)
  }
  await report()
  return path
}

/** Reads `'URL' FILE SIZE HASH`, the line that --print-uris gives for a package. */
function locate(name: string, printed: string): Located {
  const match = /^'([^']+)' (\S+) (\d+)/m.exec(printed)
  if (match === null) throw new FoveaError(`Unable to locate package ${name}`)
  return { url: match[1]!, file: match[2]!, size: Number(match[3]) }
}

async function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(command, args, {
      cwd,
      timeout: 10 * 60 * 1000,
      maxBuffer: 16 * 1024 * 1024,
      env: { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
    })
    return stdout
  } catch (error) {
    const { code, stderr } = error as { code?: string | number; stderr?: string }
    if (code === 'ENOENT') throw new FoveaError(`${command} not found`)
    const lines = (stderr ?? '').split('\n')
    const line = lines.find(text => text.startsWith('E:')) ?? lines.find(text => text.trim() !== '')
    throw new FoveaError(line?.replace(/^E:\s*/, '').trim() ?? `${command} failed (${code})`)
  }
}
