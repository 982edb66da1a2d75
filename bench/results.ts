/** The committed results: one file a day and kind of machine, to which each run adds its rows. */
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../src/train/files.ts'
import { networks } from './networks.ts'
import { markdown, type Report } from './table.ts'

const folder = join(import.meta.dirname, 'results')

/**
 * Writes a report as JSON and Markdown. Rows of the same day, machine and version that were not measured again
 * stay; whoever cuts a run off loses the row under way.
 */
export async function keep(report: Report): Promise<void> {
  await mkdir(folder, { recursive: true })
  const path = join(folder, `${report.date}-${report.machine.cores}-cores`)
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
  if (old?.fovea !== report.fovea || !sameMachine(old, report)) return report
  const order = networks.map(({ name }) => name)
  const rows = replaced(old.rows, report.rows, row => [row.network, row.batch, row.threads])
  return {
    ...report,
    peaks: replaced(old.peaks, report.peaks, ({ threads }) => [threads]).sort(
      (a, b) => a.threads - b.threads,
    ),
    rows: rows.sort(
      (a, b) =>
        a.threads - b.threads || a.batch - b.batch || order.indexOf(a.network) - order.indexOf(b.network),
    ),
    trials: replaced(old.trials, report.trials, trial => [trial.network, trial.count]),
  }
}

const sameMachine = ({ machine: a }: Report, { machine: b }: Report) =>
  a.cpu === b.cpu && a.cores === b.cores && a.node === b.node

/** The old ones of which there is no new one, and the new ones. */
function replaced<T>(old: readonly T[], fresh: readonly T[], keyOf: (one: T) => readonly unknown[]): T[] {
  const key = (one: T) => keyOf(one).join(' ')
  const keys = new Set(fresh.map(key))
  return [...old.filter(one => !keys.has(key(one))), ...fresh]
}
