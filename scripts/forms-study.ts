/**
 * Does the fastest form of convolution cost accuracy? Trains a network with the forms that Fovea chooses and with the plain
 * one (`--convolution gather`), for each seed, and tests whether the test accuracies are equivalent, paired by seed. All by
 * `fovea train`: what stands after -- is the recipe of each trial.
 *
 *   node scripts/forms-study.ts --out DIR [--model wang/cnn] [--plain gather] [--seeds 5] [--margin 0.3] [--jobs N] [--data DIR]
 *     [--json] [-- --dataset cifar-10 --epochs 5 --schedule cosine ...]
 *
 * --margin is in points. --jobs trials of one thread run at once (default: as many as there are cores). Called again with the
 * same DIR it goes on where it was stopped.
 */
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { equivalence } from '../src/stats/paired.ts'
import { summarize } from '../src/stats/summary.ts'
import { checkQuestion, resultInFolder } from './train-in-folder.ts'

const { values: flags, positionals: recipe } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string' },
    model: { type: 'string', default: 'wang/cnn' },
    plain: { type: 'string', default: 'gather' },
    seeds: { type: 'string', default: '5' },
    margin: { type: 'string', default: '0.3' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    data: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const { out, model, plain } = flags
if (out === undefined) throw new Error('expected --out DIR')
for (const [name, least] of [
  ['seeds', 2],
  ['jobs', 1],
  ['margin', Number.MIN_VALUE],
] as const)
  if (!(Number(flags[name]) >= least))
    throw new Error(`--${name}: expected a number of at least ${least}, received ${flags[name]}`)

checkQuestion(out, { model, plain, recipe })
const arms = { fastest: [], [plain]: ['--convolution', plain] }
const accuracies: Record<string, number[]> = Object.fromEntries(Object.keys(arms).map(arm => [arm, []]))
const trials = Array.from({ length: Number(flags.seeds) }, (_, i) => i + 1).flatMap(seed =>
  Object.entries(arms).map(([arm, own]) => ({ arm, own, seed })),
)

async function worker(): Promise<void> {
  for (let trial = trials.shift(); trial; trial = trials.shift()) {
    const { arm, own, seed } = trial
    const folder = join(out!, `${arm}_seed-${seed}`)
    const say = (line: string) => process.stderr.write(`${arm}, seed ${seed}: ${line.trim()}\n`)
    const begin = ['--model', model, '--seed', String(seed), ...own, ...recipe]
    const always = ['--threads', '1', ...(flags.data === undefined ? [] : ['--data', flags.data])]
    const { test } = await resultInFolder(folder, begin, always, say)
    accuracies[arm]![seed - 1] = 100 * test.accuracy
  }
}
await Promise.all(Array.from({ length: Number(flags.jobs) }, worker))

const margin = Number(flags.margin)
const [fast, other] = [accuracies.fastest!, accuracies[plain]!]
const { difference, isEquivalent } = equivalence(fast, other, margin)
if (flags.json)
  process.stdout.write(
    `${JSON.stringify({ model, recipe, accuracies, margin, difference, isEquivalent }, undefined, 2)}\n`,
  )
else {
  const line = (arm: string, values: readonly number[]) => {
    const { mean, deviation = 0 } = summarize(values)
    const each = values.map(value => value.toFixed(2)).join(', ')
    return `${arm.padEnd(9)} ${mean.toFixed(2)} ± ${deviation.toFixed(2)} %  (${each})\n`
  }
  const { mean, low, high } = difference
  process.stdout.write(
    `${model} ${recipe.join(' ')}\n${line('fastest', fast)}${line(plain, other)}difference ${mean.toFixed(3)} points, 90 % interval ${low.toFixed(3)} to ${high.toFixed(3)}: ${isEquivalent ? '' : 'not shown to be '}equivalent within ${margin} points\n`,
  )
}
