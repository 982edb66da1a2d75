/** `fovea datasets`: what can be trained on. */
import type { Command } from 'commander'
import { describeDataSets } from '../data/registry.ts'
import { extents, grouped } from './format.ts'
import { addCommonOptions } from './options.ts'
import { table } from './table.ts'
import { colorsOf, widthOf } from './terminal.ts'

export function addDatasetsCommand(program: Command): void {
  addCommonOptions(program.command('datasets').description('list the data sets')).action(datasets)
}

function datasets({ json }: { readonly json?: boolean }): void {
  const known = describeDataSets()
  if (json) {
    process.stdout.write(`${JSON.stringify(known, undefined, 2)}\n`)
    return
  }
  const { bold, dim } = colorsOf(process.stdout)
  const lines = table(
    [
      { title: 'name', style: bold },
      { title: 'title', optional: true },
      { title: 'images' },
      { title: 'classes', align: 'right' },
      { title: 'train', align: 'right' },
      { title: 'test', align: 'right' },
      { title: 'licence' },
      { title: 'source', optional: true },
    ],
    known.map(({ name, title, imageShape, classCount, train, test, licence, source }) => [
      name,
      title,
      extents(imageShape),
      String(classCount),
      grouped(train),
      grouped(test),
      licence,
      source,
    ]),
    { width: widthOf(process.stdout), styleTitle: dim },
  )
  process.stdout.write(`${lines.join('\n')}\n`)
}
