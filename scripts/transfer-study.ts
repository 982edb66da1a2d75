/**
 * Does a network that was trained on one data set help on another? Trains on FROM, then, for each seed, on a
 * share of TO: from scratch and from the trained weights, for equally many epochs. Prints the difference of
 * the test accuracies, paired by seed (the same split, order and masks), with its 95 % interval. All by
 * `fovea train`: what stands after -- is the recipe of each trial.
 *
 *   node scripts/transfer-study.ts --out DIR [--model resnet20] [--from cifar-100] [--to cifar-10] [--fraction 0.1]
 *     [--pretrain-epochs 20] [--pretrain-fraction 1] [--epochs 20] [--seeds 5] [--freeze none]
 *     [--backbone-learning-rate X] [--data DIR] [--jobs 1] [--threads N] [--json]
 *     [-- --batch-size 128 --augment crop:4,flip ...]
 *
 * Called again with the same DIR it goes on where it was stopped. --data may be a folder that holds both data
 * sets.
 */
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { pairedDifference } from '../src/stats/paired.ts'
import { summarize } from '../src/stats/summary.ts'
import type { TrialResult } from '../src/train/trial.ts'
import { checkQuestion, resultInFolder } from './train-in-folder.ts'

const { values: flags, positionals: recipe } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string' },
    model: { type: 'string', default: 'resnet20' },
    from: { type: 'string', default: 'cifar-100' },
    to: { type: 'string', default: 'cifar-10' },
    fraction: { type: 'string', default: '0.1' },
    'pretrain-epochs': { type: 'string', default: '20' },
    'pretrain-fraction': { type: 'string', default: '1' },
    epochs: { type: 'string', default: '20' },
    seeds: { type: 'string', default: '5' },
    freeze: { type: 'string', default: 'none' },
    'backbone-learning-rate': { type: 'string' },
    data: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    threads: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const { out, model, from, to } = flags
if (out === undefined) throw new Error('expected --out DIR')
for (const [name, least] of [
  ['jobs', 1],
  ['seeds', 2],
] as const)
  if (!(Number(flags[name]) >= least))
    throw new Error(`--${name}: expected a number of at least ${least}, received ${flags[name]}`)
const jobs = Number(flags.jobs)
const cores = availableParallelism()
const began = performance.now()

function progress(text: string): void {
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  process.stderr.write(`${seconds.padStart(6)} s  ${text}\n`)
}

/** Trains in a folder, goes on where it was stopped, or only reads what has ended. */
async function trained(
  name: string,
  folder: string,
  threads: number,
  flagsOf: readonly string[],
): Promise<TrialResult> {
  const place = ['--threads', flags.threads ?? String(threads)]
  const data = flags.data === undefined ? [] : ['--data', flags.data]
  const begin = ['--model', model, ...flagsOf, ...recipe]
  const say = (line: string) => progress(`${name}: ${line.trim()}`)
  const read = await resultInFolder(folder, begin, [...place, ...data], say)
  progress(`${name}: test accuracy ${percent(read.test.accuracy)}`)
  return read
}

const percent = (fraction: number): string => `${(100 * fraction).toFixed(2)} %`

const others = ['out', 'data', 'seeds', 'jobs', 'threads', 'json']
const asked = Object.entries(flags).filter(([name]) => !others.includes(name))
checkQuestion(out, { ...Object.fromEntries(asked), recipe })
const pretrained = join(out, 'pretrained')
const first = await trained('pretraining', pretrained, cores, [
  ...['--dataset', from, '--epochs', flags['pretrain-epochs'], '--fraction', flags['pretrain-fraction']],
])

const rate = flags['backbone-learning-rate']
const arms = {
  scratch: [],
  transfer: [
    ...['--weights', pretrained, '--freeze', flags.freeze],
    ...(rate === undefined ? [] : ['--backbone-learning-rate', rate]),
  ],
}
type Arm = keyof typeof arms
const seeds = Array.from({ length: Number(flags.seeds) }, (_, i) => i + 1)
const waiting = seeds.flatMap(seed => (['scratch', 'transfer'] as const).map(arm => ({ arm, seed })))
const accuracies: Record<Arm, number[]> = { scratch: [], transfer: [] }
async function worker(): Promise<void> {
  for (let trial = waiting.shift(); trial; trial = waiting.shift()) {
    const { arm, seed } = trial
    const common = ['--dataset', to, '--epochs', flags.epochs, '--fraction', flags.fraction]
    const folder = join(out!, arm, `seed-${seed}`)
    const threads = Math.max(1, Math.floor(cores / jobs))
    const all = [...common, '--seed', String(seed), ...arms[arm]]
    const { test } = await trained(`${arm}, seed ${seed}`, folder, threads, all)
    accuracies[arm][seed - 1] = test.accuracy
  }
}
await Promise.all(Array.from({ length: jobs }, worker))

const difference = pairedDifference(accuracies.transfer, accuracies.scratch)
if (flags.json) {
  const asked = { ...flags, recipe }
  const document = { asked, pretrained: first.test, seeds, accuracies, difference }
  process.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`)
} else {
  const { mean, low, high } = difference
  const points = (value: number) => `${value < 0 ? '-' : '+'}${Math.abs(100 * value).toFixed(2)}`
  const line = (arm: Arm) => {
    const { mean: average, deviation = 0 } = summarize(accuracies[arm])
    return `${arm.padEnd(9)} ${percent(average)} ± ${(100 * deviation).toFixed(2)}  (${accuracies[arm].map(percent).join(', ')})\n`
  }
  process.stdout.write(
    `${model}, ${percent(Number(flags.fraction))} of ${to}, ${flags.epochs} epochs; pretrained on ${from} for ${flags['pretrain-epochs']} epochs\n` +
      line('scratch') +
      line('transfer') +
      `difference ${points(mean)} points, 95 % interval ${points(low)} to ${points(high)}, ${seeds.length} seeds, paired\n`,
  )
}
