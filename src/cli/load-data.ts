/** Loads a data set, shows a download, and tells what was left out. */
import { relative } from 'node:path'
import type { DataSet, LoadProgress } from '../data/data-set.ts'
import { UndecodablePicture } from '../data/picture.ts'
import { loadDataSet } from '../data/registry.ts'
import { FoveaError } from '../util/errors.ts'
import { warn } from './failure.ts'
import { plural } from './format.ts'
import { Screen } from './screen.ts'

/** Undecodable pictures that a warning names. */
const NAMED = 3

export async function loadData(
  name: string,
  folder: string | undefined,
  skipUndecodable = false,
): Promise<DataSet> {
  const data = await withDownloads(progress =>
    loadDataSet(name, { ...(folder === undefined ? {} : { folder }), skipUndecodable, progress }),
  ).catch(error => {
    if (!(error instanceof UndecodablePicture)) throw error
    throw new FoveaError(`${error.message}; --skip-undecodable leaves such pictures out`, { cause: error })
  })
  warnOfSkipped(data)
  for (const note of data.notes ?? []) warn(`${data.title}: ${note}`)
  return data
}

/** Shows what `work` downloads. */
export async function withDownloads<T>(
  work: (progress: (event: LoadProgress) => void) => Promise<T>,
): Promise<T> {
  const screen = new Screen()
  let last: LoadProgress | undefined
  const paint = () => (last ? [`  ${last.phase === 'apt' ? 'apt-get' : 'downloading'} ${amount(last)}`] : [])
  try {
    return await work(event => {
      if (!screen.live && event.file !== last?.file)
        screen.line(`downloading ${event.file} from ${event.url}`)
      if (!last) screen.show(paint)
      last = event
    })
  } finally {
    screen.hide()
  }
}

function warnOfSkipped({ skipped = [] }: DataSet): void {
  if (skipped.length === 0) return
  const named = skipped.slice(0, NAMED).map(({ file, reason }) => `${shortest(file)} (${reason})`)
  const more = skipped.length > NAMED ? [`${skipped.length - NAMED} more`] : []
  warn(`${plural(skipped.length, 'picture')} skipped: ${[...named, ...more].join('; ')}`)
}

/** From the working folder, where that is shorter. */
function shortest(file: string): string {
  const fromHere = relative('', file)
  return fromHere.length < file.length ? fromHere : file
}

function amount({ file, received, total }: LoadProgress): string {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
  return total === undefined
    ? `${file}  ${megabytes(received)} MB`
    : `${file}  ${megabytes(received)} of ${megabytes(total)} MB`
}
