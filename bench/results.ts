/** The committed results: one file a day and machine, to which each run adds its rows. */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../src/train/files.ts'
import { FoveaError } from '../src/util/errors.ts'
import { networks } from './networks.ts'
import { markdown, type Report } from './table.ts'

const folder = join(import.meta.dirname, 'results')

/** As `2026-11-22-amd-epyc-2-cores`. */
function place({ date, machine }: Pick<Report, 'date' | 'machine'>): string {
  const words = machine.cpu.replace(/\((R|TM)\)/gi, ' ').match(/[a-z0-9]+/gi) ?? []
  return join(folder, [date, ...words, machine.cores, 'cores'].join('-').toLowerCase())
}

/**
 * Before anything is measured: whether the day's file can take the rows.
 *
 * @throws FoveaError where it holds those of another machine or version
 */
export async function checkKept(report: Pick<Report, 'date' | 'machine' | 'fovea'>): Promise<void> {
  const path = `${place(report)}.json`
  const old = await earlier(path)
  const name = ({ fovea, machine }: Pick<Report, 'machine' | 'fovea'>) =>
    `Fovea ${fovea} on ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}`
  if (old && name(old) !== name(report))
    throw new FoveaError(
      `${path}: expected rows of ${name(report)}, received ${name(old)}; move the file away`,
    )
}

/**
 * Writes a report as JSON and Markdown, beside the day's rows and trials that were not measured again. Whoever
 * cuts a run off loses the row under way.
 */
export async function keep(report: Report): Promise<void> {
  await mkdir(folder, { recursive: true })
  const path = place(report)
  const all = merged(await earlier(`${path}.json`), report)
  await writeFileAtomic(`${path}.json`, `${JSON.stringify(all, undefined, 2)}\n`)
  await writeFileAtomic(`${path}.md`, markdown(all))
}

async function earlier(path: string): Promise<Report | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  return text === undefined ? undefined : JSON.parse(text)
}

function merged(old: Report | undefined, report: Report): Report {
  if (!old) return report
  const order = networks.map(({ name }) => name)
  const rows = replaced(old.rows, report.rows, row => [row.network, row.batch, row.threads])
  return {
    ...report,
    rows: rows.sort(
      (a, b) =>
        a.threads - b.threads || a.batch - b.batch || order.indexOf(a.network) - order.indexOf(b.network),
    ),
    trials: replaced(old.trials, report.trials, trial => [trial.network, trial.count]),
  }
}

/** The old ones of which there is no new one, and the new ones. */
function replaced<T>(old: readonly T[], fresh: readonly T[], keyOf: (one: T) => readonly unknown[]): T[] {
  const key = (one: T) => keyOf(one).join(' ')
  const keys = new Set(fresh.map(key))
  return [...old.filter(one => !keys.has(key(one))), ...fresh]
}
