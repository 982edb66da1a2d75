/** A paper's claims beside what was measured, as text for a terminal. */
import { stripVTControlCharacters } from 'node:util'
import type { Comparison } from '../study/reproduce.ts'
import type { Paper } from '../zoo/paper.ts'
import { grouped, hundredths, wrapped } from './format.ts'
import { type Column, table } from './table.ts'
import type { Colors } from './terminal.ts'

interface Place {
  readonly width: number
  readonly colors: Colors
}

const right = (title: string): Column => ({ title, align: 'right' })

export function reportLines(
  paper: Paper,
  comparisons: readonly Comparison[],
  assumed: readonly string[],
  place: Place,
): string[] {
  const { bold, dim } = place.colors
  const width = Math.min(place.width, 100)
  return [
    bold('Test accuracy: claimed and measured, in percent'),
    '',
    ...comparisonTables(comparisons, place),
    '',
    dim(
      wrapped(
        'measured: mean ± standard deviation over n seeds; points: measured - claimed; train: accuracy in training, last epoch',
        width,
        '  ',
      ),
    ),
    '',
    ...paper.remarks.map(text => wrapped(text, width, '  - ')),
    wrapped(`Assumed, where the paper does not say: ${assumed.join('; ')}.`, width, '  - '),
    '',
    wrapped(paper.citation, width, '  '),
  ]
}

/** One table where it fits; on a narrow terminal two, so that nothing has to be left out. */
function comparisonTables(comparisons: readonly Comparison[], { width, colors }: Place): string[] {
  const { bold, dim } = colors
  const arm: Column = { title: 'arm', style: bold }
  const accuracy = [right('claimed'), right('measured'), right('n'), right('min..max'), right('points')]
  const training = [right('params'), right('train'), right('images/s')]
  const options = { width: Number.POSITIVE_INFINITY, styleTitle: dim }
  const whole = table(
    [arm, ...accuracy, ...training],
    comparisons.map(of => [of.arm, ...accuracyCells(of), ...trainingCells(of)]),
    options,
  )
  // The first line, the titles, is as long as the columns together.
  if (plainLength(whole[0]!) <= width) return whole
  return [
    ...table(
      [arm, ...accuracy],
      comparisons.map(of => [of.arm, ...accuracyCells(of)]),
      options,
    ),
    '',
    ...table(
      [arm, ...training],
      comparisons.map(of => [of.arm, ...trainingCells(of)]),
      options,
    ),
  ]
}

function accuracyCells({ claim, test }: Comparison): string[] {
  const claimed = claim ? hundredths(claim.accuracy) : '-'
  if (!test) return [claimed, 'failed', '0', '-', '-']
  const { mean, deviation, n, least, most } = test
  const difference = claim ? mean - claim.accuracy : undefined
  return [
    claimed,
    deviation === undefined ? hundredths(mean) : `${hundredths(mean)} ± ${hundredths(deviation)}`,
    String(n),
    `${hundredths(least)}..${hundredths(most)}`,
    difference === undefined ? '-' : `${difference < 0 ? '' : '+'}${hundredths(difference)}`,
  ]
}

function trainingCells({ parameters, train, imagesPerSecond }: Comparison): string[] {
  return [
    parameters === undefined ? '-' : grouped(parameters),
    train ? hundredths(train.mean) : '-',
    imagesPerSecond === undefined ? '-' : grouped(imagesPerSecond),
  ]
}

function plainLength(line: string): number {
  return stripVTControlCharacters(line).length
}
