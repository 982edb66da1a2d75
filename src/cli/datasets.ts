/** `fovea datasets`: what can be trained on, and the card of one data set. */
import type { Command } from 'commander'
import { dataCard } from '../data/card.ts'
import { describeDataSets } from '../data/registry.ts'
import { UsageError } from '../util/errors.ts'
import { cardLines } from './data-card.ts'
import { extents, grouped } from './format.ts'
import { loadData } from './load-data.ts'
import { addCommonOptions, addSkipOption } from './options.ts'
import { table } from './table.ts'
import { colorsOf, widthOf } from './terminal.ts'

interface Flags {
  readonly data?: string
  readonly skipUndecodable?: boolean
  readonly json?: boolean
}

const EXAMPLES = `
Examples:
  fovea datasets
  fovea datasets fashion-mnist
  fovea datasets cifar-10 --data downloads --json
  fovea datasets folder:64x64x3:pictures --skip-undecodable`

export function addDatasetsCommand(program: Command): void {
  const command = program
    .command('datasets')
    .description('list the data sets; with a name, its card')
    .argument('[name]', "a data set's name, or folder:PATH or folder:HxWxC:PATH")
    .option('--data <dir>', "a folder with the data set's files; default: cache, Debian's package, network")
  addSkipOption(command)
  addCommonOptions(command).addHelpText('after', EXAMPLES).action(datasets)
}

async function datasets(name: string | undefined, flags: Flags): Promise<void> {
  const lines = name === undefined ? listing(flags) : await card(name, flags)
  process.stdout.write(`${lines.join('\n')}\n`)
}

async function card(name: string, { data, skipUndecodable, json }: Flags): Promise<string[]> {
  const known = dataCard(await loadData(name, data, skipUndecodable))
  if (json) return [JSON.stringify(known, undefined, 2)]
  return cardLines(known, { width: widthOf(process.stdout), colors: colorsOf(process.stdout) })
}

function listing({ data, skipUndecodable, json }: Flags): string[] {
  if (data !== undefined || skipUndecodable)
    throw new UsageError(
      `${data === undefined ? '--skip-undecodable' : '--data'}: expected with a data set's name, received without one`,
    )
  const known = describeDataSets()
  if (json) return [JSON.stringify(known, undefined, 2)]
  const { bold, dim } = colorsOf(process.stdout)
  return table(
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
}
