/** Loads a data set and shows a download. */
import type { DataSet, LoadProgress } from '../data/data-set.ts'
import { loadDataSet } from '../data/registry.ts'
import { Screen } from './screen.ts'

export async function loadData(name: string, folder: string | undefined): Promise<DataSet> {
  const screen = new Screen()
  let last: LoadProgress | undefined
  const paint = () => (last ? [`  ${last.phase === 'apt' ? 'apt-get' : 'downloading'} ${amount(last)}`] : [])
  try {
    return await loadDataSet(name, {
      ...(folder === undefined ? {} : { folder }),
      progress(event) {
        if (!screen.live && event.file !== last?.file)
          screen.line(`downloading ${event.file} from ${event.url}`)
        if (!last) screen.show(paint)
        last = event
      },
    })
  } finally {
    screen.hide()
  }
}

function amount({ file, received, total }: LoadProgress): string {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
  return total === undefined
    ? `${file}  ${megabytes(received)} MB`
    : `${file}  ${megabytes(received)} of ${megabytes(total)} MB`
}
