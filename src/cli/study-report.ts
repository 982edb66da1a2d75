/** A paper's claims beside what was measured, as text for a terminal. */
import { stripVTControlCharacters } from 'node:util'
import type { DataSet } from '../data/data-set.ts'
import { splitSizes } from '../study/estimate.ts'
import type { Comparison, PlannedTrial } from '../study/reproduce.ts'
import type { Paper } from '../zoo/paper.ts'
import { grouped, hundredths, plural, wrapped } from './format.ts'
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
  conditions: string,
  assumed: readonly string[],
  place: Place,
): string[] {
  const { bold, dim } = place.colors
  const width = Math.min(place.width, 100)
  const tested = paper.training.test === 'best epoch' ? 'epoch that is best on validation' : 'last epoch'
  return [
    bold('Test accuracy: claimed and measured, in percent'),
    wrapped(conditions, width, '  '),
    '',
    ...comparisonTables(comparisons, place),
    '',
    dim(
      wrapped(
        `measured: test accuracy of the ${tested}, mean ± standard deviation over n seeds; points: measured - claimed; train: accuracy in training, last epoch`,
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

/**
 * Under what the numbers were measured: data, epochs beside the paper's, seeds, and what was asked for
 * instead of its protocol.
 */
export function conditionsOf(paper: Paper, trials: readonly PlannedTrial[], dataSet: DataSet): string {
  const fractions = [...new Map(trials.map(trial => [trial.arm.fraction, trial]))]
  const train = fractions.map(([fraction, { spec }]) => {
    const count = grouped(splitSizes(spec, dataSet).train)
    return fraction === 1 ? count : `${count} (${fraction * 100} %)`
  })
  const { spec } = trials[0]!
  const { optimizer, batchSize, epochs } = spec
  const { training } = paper
  const { learningRate } = optimizer
  const rate = typeof learningRate === 'number' ? learningRate : 'by a schedule'
  const seeds = [...new Set(trials.map(({ seed }) => seed))]
  const same = JSON.stringify(optimizer) === JSON.stringify(training.optimizer)
  return [
    `${dataSet.title}: ${train.join(' or ')} training, ${grouped(splitSizes(spec, dataSet).validation)} validation and ${grouped(dataSet.test.count)} test images`,
    `${plural(epochs, 'epoch')} (the paper: ${paper.scales.paper.epochs})`,
    `${seeds.length === 1 ? 'seed' : 'seeds'} ${seeds.join(', ')}`,
    ...(same
      ? []
      : [`${optimizer.optimizer}, learning rate ${rate}, instead of the optimizer assumed below`]),
    ...(batchSize === training.batchSize
      ? []
      : [`minibatches of ${batchSize} instead of ${training.batchSize}`]),
  ].join('; ')
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
