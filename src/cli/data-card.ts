/** A data card as text. */
import type { DataCard, DuplicateCount } from '../data/card.ts'
import { extents, grouped, plural, wrapped } from './format.ts'
import { type Column, table } from './table.ts'
import { type Colors, filled } from './terminal.ts'

interface Look {
  /** Columns of the terminal. */
  readonly width: number
  readonly colors: Colors
}

/** Groups of identical images that are shown as examples. */
const EXAMPLES = 5
/** Images of one group and split that are named. */
const NAMED = 5
const BAR_WIDTH = 16
/** Text is not set wider than it can be read. */
const TEXT_WIDTH = 100
const NO_BREAK = '\u00a0'

export function cardLines(card: DataCard, look: Look): string[] {
  const { bold, dim } = look.colors
  return [
    `${bold(card.name)}  ${card.title}`,
    '',
    ...facts(card, look),
    '',
    ...table(
      [
        { title: 'split', style: bold },
        { title: 'images', align: 'right' },
        { title: 'channel' },
        { title: 'mean', align: 'right' },
        { title: '/ 255', align: 'right', style: dim },
        { title: 'deviation', align: 'right' },
        { title: '/ 255', align: 'right', style: dim },
        { title: 'min', align: 'right' },
        { title: 'max', align: 'right' },
      ],
      channelRows(card),
      { width: look.width, styleTitle: dim },
    ),
    '',
    ...classLines(card, look),
    '',
    ...duplicateLines(card, look),
  ]
}

function facts({ imageShape, publisher, licence, source, hash, skipped }: DataCard, look: Look): string[] {
  const rows = [
    ['images', `${extents(imageShape)} (height, width, channels), 0 to 255`],
    ['licence', licence ?? 'not known'],
    ['published by', publisher ?? 'nobody: a folder of pictures'],
    ['this copy', source],
    ['SHA-256', hash],
    ...(skipped.length > 0 ? [['skipped', plural(skipped.length, 'undecodable picture')]] : []),
  ] as const
  const wide = Math.max(...rows.map(([name]) => name!.length))
  const width = Math.min(look.width, TEXT_WIDTH)
  return rows.flatMap(([name, text]) => {
    const [first, ...others] = wrapped(text!, width, ' '.repeat(wide + 4)).split('\n')
    return [`  ${look.colors.dim(name!.padEnd(wide))}  ${first!.trimStart()}`, ...others]
  })
}

function channelRows({ train, test }: DataCard): string[][] {
  return [['train', train] as const, ['test', test] as const].flatMap(([split, { images, channels }]) => {
    const names = channels.length === 3 ? ['red', 'green', 'blue'] : ['grey']
    return channels.map(({ mean, deviation, min, max }, i) => [
      i === 0 ? split : '',
      i === 0 ? grouped(images) : '',
      names[i] ?? String(i),
      mean.toFixed(2),
      (mean / 255).toFixed(4),
      deviation.toFixed(2),
      (deviation / 255).toFixed(4),
      String(min),
      String(max),
    ])
  })
}

/** Where all classes have as many images, their names are enough. */
function classLines({ classes }: DataCard, { width, colors }: Look): string[] {
  const [first] = classes
  if (classes.every(({ train, test }) => train === first!.train && test === first!.test)) {
    const each = `each of ${grouped(first!.train)} training and ${plural(first!.test, 'test image')}`
    // A name stays in one line, whatever spaces it has.
    const names = classes.map(({ name }) => name.replaceAll(' ', NO_BREAK)).join(', ')
    const text = wrapped(names, Math.min(width, TEXT_WIDTH), '    ').replaceAll(NO_BREAK, ' ')
    return [`  ${classes.length} classes, ${each}`, ...text.split('\n')]
  }
  const most = Math.max(...classes.map(({ train }) => train))
  const total = classes.reduce((sum, { train }) => sum + train, 0)
  const columns: Column[] = [
    { title: 'class', style: colors.bold },
    { title: 'train', align: 'right' },
    { title: '', style: colors.cyan, optional: true },
    { title: 'share', align: 'right', optional: true },
    { title: 'test', align: 'right' },
  ]
  const rows = classes.map(({ name, train, test }) => [
    name,
    grouped(train),
    filled(train / most, BAR_WIDTH),
    `${((100 * train) / total).toFixed(1)} %`,
    grouped(test),
  ])
  return table(columns, rows, { width, styleTitle: colors.dim })
}

function duplicateLines({ duplicates, classes }: DataCard, { width, colors }: Look): string[] {
  const { groupCount, groups } = duplicates
  if (groupCount === 0) return ['  No two images are identical, within a split or across them.']
  const row = (where: string, { groups, trainImages, testImages, conflicting }: DuplicateCount) => [
    where,
    grouped(groups),
    trainImages === 0 ? '-' : grouped(trainImages),
    testImages === 0 ? '-' : grouped(testImages),
    grouped(conflicting),
  ]
  const shown = groups.slice(0, EXAMPLES)
  return [
    ...table(
      [
        { title: 'identical images', style: colors.bold },
        { title: 'groups', align: 'right' },
        { title: 'train', align: 'right' },
        { title: 'test', align: 'right' },
        { title: 'with conflicting labels', align: 'right' },
      ],
      [
        row('within train', duplicates.train),
        row('within test', duplicates.test),
        row('across the splits', duplicates.across),
      ],
      { width, styleTitle: colors.dim },
    ),
    '',
    ...shown.map(({ train, test, labels }) => {
      const names = labels.map(label => classes[label]!.name).join(', ')
      const where = [places('train', train), places('test', test)].filter(text => text !== '').join('; ')
      const text = wrapped(`${names}: ${where}`, Math.min(width, TEXT_WIDTH), '    ')
      return labels.length > 1 ? colors.yellow(text) : text
    }),
    colors.dim(`  ${grouped(shown.length)} of ${plural(groupCount, 'group')} shown; --json lists all`),
  ]
}

/** `train 5, 17`; of many, the first. */
function places(split: string, members: readonly number[]): string {
  if (members.length === 0) return ''
  const more = members.length - NAMED
  return `${split} ${members.slice(0, NAMED).join(', ')}${more > 0 ? ` and ${grouped(more)} more` : ''}`
}
