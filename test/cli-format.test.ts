/** Numbers and tables as a terminal shows them. */
import { expect, test } from 'vitest'
import { clock, duration, lossText, metric, wrapped } from '../src/cli/format.ts'
import { conditionsOf, reportLines } from '../src/cli/study-report.ts'
import { table } from '../src/cli/table.ts'
import { colorsOf } from '../src/cli/terminal.ts'
import { loadDataSet } from '../src/data/registry.ts'
import { sgd } from '../src/nn/optimizers.ts'
import { summarize } from '../src/stats/summary.ts'
import { type Changes, type Comparison, planTrials } from '../src/study/reproduce.ts'
import { singhBrar2024 } from '../src/zoo/singh-brar-2024.ts'

test('durations', () => {
  expect([0, 59.4, 59.6, 3599, 3600, 36_061].map(clock)).toEqual([
    '0:00',
    '0:59',
    '1:00',
    '59:59',
    '1:00:00',
    '10:01:01',
  ])
  expect([clock(Number.NaN), clock(Number.POSITIVE_INFINITY)]).toEqual(['-:--', '-:--'])
  expect([0.04, 9.94, 9.96, 59.6, 185, 5075].map(duration)).toEqual([
    '0.0 s',
    '9.9 s',
    '10 s',
    '1 min 0 s',
    '3 min 5 s',
    '1 h 24 min',
  ])
})

test('counts in three digits', () => {
  expect(
    [0, 999, 999.6, 9994, 9996, 99_949, 99_950, 999_499, 999_500, 15_470_264_320, 4e21].map(metric),
  ).toEqual([
    '0',
    '999',
    '1.00 k',
    '9.99 k',
    '10.0 k',
    '99.9 k',
    '100 k',
    '999 k',
    '1.00 M',
    '15.5 G',
    '4000000 P',
  ])
})

test('losses of any size stay readable', () => {
  expect([0, 0.00002, 0.25, 12.5, 123456].map(lossText)).toEqual([
    '0.0000',
    '2.0e-5',
    '0.2500',
    '12.5000',
    '1.2e+5',
  ])
})

test('words are wrapped with a hanging indent; a number and its percent sign stay together', () => {
  expect(wrapped('the claims are 99.9 % and more', 20, '  - ')).toBe(
    '  - the claims are\n    99.9 % and more',
  )
  expect(wrapped('unbreakableword', 5, '  ')).toBe('  unbreakableword')
})

test('a table aligns, and leaves out optional columns where it would be too wide', () => {
  const columns = [
    { title: 'name' },
    { title: 'title', optional: true },
    { title: 'count', align: 'right' },
  ] as const
  const rows = [
    ['a', 'the first', '1'],
    ['bc', 'second', '1,000'],
  ]
  const plain = (text: string) => text
  expect(table(columns, rows, { width: 80, styleTitle: plain })).toEqual([
    '  name  title      count',
    '  a     the first      1',
    '  bc    second     1,000',
  ])
  expect(table(columns, rows, { width: 20, styleTitle: plain })).toEqual([
    '  name  count',
    '  a         1',
    '  bc    1,000',
  ])
})

const comparisons: Comparison[] = singhBrar2024.arms.map(({ name }, i) => ({
  arm: name,
  claim: singhBrar2024.claims.find(({ arm }) => arm === name),
  accuracies: [],
  test: i === 1 ? undefined : summarize(i === 2 ? [0.9] : [0.9012, 0.9033, 0.8987]),
  train: i === 1 ? undefined : summarize([0.93]),
  parameters: i === 1 ? undefined : 693_962,
  imagesPerSecond: i === 1 ? undefined : 11_203,
}))

const dataSet = await loadDataSet('fashion-mnist-subset')
const planned = (changes: Changes) =>
  planTrials(singhBrar2024, singhBrar2024.scales.paper, dataSet, 'study', { seeds: [1, 4], ...changes })

test('the conditions of a report: what was run, and only what differs from the protocol', () => {
  const trials = planned({ epochs: 2 })
  expect(conditionsOf(singhBrar2024, trials, dataSet)).toBe(
    'Fashion-MNIST (subset): 1,800 or 450 (25 %) training, 200 validation and 500 test images; 2 epochs (the paper: 50); seeds 1, 4',
  )
  const [whole] = trials
  expect(conditionsOf(singhBrar2024, [whole!], dataSet)).toContain(': 1,800 training, 200 validation')
})

test.for([80, 100])('the report of a paper fits %i columns', width => {
  // Not a terminal: no colours.
  const colors = colorsOf(process.stdout)
  const conditions = conditionsOf(singhBrar2024, planned({ batchSize: 64, optimizer: sgd() }), dataSet)
  const assumed = [...singhBrar2024.assumed, ...singhBrar2024.arms[1]!.assumed!]
  const lines = reportLines(singhBrar2024, comparisons, conditions, assumed, { width, colors }).join('\n')
  expect(lines).toMatchSnapshot()
  for (const line of lines.split('\n')) expect(line.length, line).toBeLessThanOrEqual(width)
})
