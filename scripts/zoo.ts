/**
 * Trains the zoo by the recipes of zoo-recipes.ts and keeps docs/zoo.json and the table of docs/zoo.md: what
 * each reached.
 *
 *   node scripts/zoo.ts [--only MODEL,MODEL] [--seeds N] [--threads N] [--data DIR]
 *                       [--out DIR, default runs/zoo] [--collect]
 *
 * A trial that has ended is not run again, one that was cut off goes on from its checkpoint; a folder that
 * was begun by another recipe is refused. --collect runs nothing. What docs/zoo.json says of other trials
 * stays.
 */
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { summarize } from '../src/stats/summary.ts'
import { writeFileAtomic } from '../src/train/files.ts'
import type { TrialResult } from '../src/train/trial.ts'
import { unknownName } from '../src/util/errors.ts'
import { resultInFolder } from './train-in-folder.ts'
import { type Recipe, recipes } from './zoo-recipes.ts'

const root = join(import.meta.dirname, '..')
const documents = { results: join(root, 'docs/zoo.json'), page: join(root, 'docs/zoo.md') }
const marks = ['<!-- results -->', '<!-- end of results -->'] as const

/** What one trial reached, as docs/zoo.json keeps it. */
interface Reached {
  readonly command: string
  readonly seed: number
  readonly epochs: number
  readonly parameters: number
  readonly accuracy: number
  readonly seconds: number
  readonly threads: number
  readonly cpu: string
  readonly fovea: string
  readonly runtime: string
}

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    seeds: { type: 'string', default: '1' },
    threads: { type: 'string' },
    data: { type: 'string' },
    out: { type: 'string', default: join(root, 'runs/zoo') },
    collect: { type: 'boolean', default: false },
  },
})

const named = flags.only?.split(',')
const chosen = recipes.filter(({ model }) => !named || named.includes(model))
const trained = recipes.map(({ model }) => model)
for (const name of named ?? []) if (!trained.includes(name)) throw unknownName('recipe', name, trained)

const commandOf = ({ model, dataSet, flags: own }: Recipe) =>
  `fovea train --model ${model} --dataset ${dataSet} ${own}`

await mkdir(flags.out, { recursive: true })
for (const recipe of chosen)
  for (let seed = 1; seed <= Number(flags.seeds); seed++) {
    const folder = join(flags.out, `${recipe.model.replace('/', '-')}_${recipe.dataSet}_seed-${seed}`)
    await checkCommand(recipe, folder)
    if (flags.collect && !existsSync(join(folder, 'result.json'))) continue
    await keep(recipe, await resultOf(recipe, seed, folder))
    // At once: a later trial may fail.
    await writePage()
  }
await writePage()

/** A recipe may have changed since a folder was begun: what was trained by the old one is not its result. */
async function checkCommand(recipe: Recipe, folder: string): Promise<void> {
  const note = `${folder}.txt`
  const command = commandOf(recipe)
  if (!existsSync(folder)) return flags.collect ? undefined : await writeFileAtomic(note, command)
  const before = existsSync(note) ? await readFile(note, 'utf8') : command
  if (before !== command)
    throw new Error(`${folder}: expected a trial of "${command}", received one of "${before}"; move it away`)
}

function resultOf(
  { model, dataSet, flags: own }: Recipe,
  seed: number,
  folder: string,
): Promise<TrialResult> {
  const begin = ['--model', model, '--dataset', dataSet, ...own.split(' '), '--seed', String(seed)]
  return resultInFolder(folder, begin, [
    ...(flags.threads ? ['--threads', flags.threads] : []),
    ...(flags.data && dataSet !== 'fashion-mnist' ? ['--data', flags.data] : []),
  ])
}

async function keep(recipe: Recipe, result: TrialResult): Promise<void> {
  const command = commandOf(recipe)
  const { seed, parameters, epochs, test, seconds, threads, machine, fovea, runtime } = result
  const reached: Reached = {
    command,
    seed,
    epochs: epochs.length,
    parameters,
    accuracy: test.accuracy,
    seconds: Math.round(seconds),
    threads,
    cpu: machine.cpu,
    fovea,
    runtime,
  }
  const others = (await known()).filter(one => one.command !== command || one.seed !== seed)
  await writeFileAtomic(documents.results, `${JSON.stringify([...others, reached], undefined, 2)}\n`)
}

async function known(): Promise<readonly Reached[]> {
  return existsSync(documents.results) ? JSON.parse(await readFile(documents.results, 'utf8')) : []
}

async function writePage(): Promise<void> {
  const all = await known()
  const rows = recipes.flatMap(recipe => {
    const trials = all.filter(({ command }) => command === commandOf(recipe))
    return trials.length === 0 ? [] : [rowOf(recipe, trials)]
  })
  const missing = recipes.filter(recipe => !all.some(({ command }) => command === commandOf(recipe)))
  const shown = all.filter(({ command }) => recipes.some(recipe => commandOf(recipe) === command))
  const machines = [...new Set(shown.map(({ cpu, runtime }) => `${cpu}, ${runtime}`))]
  const text = [
    '| model | data set | test accuracy | seeds | epochs | seconds a trial | threads | flags of `fovea train` | remark |',
    '|---|---|---|---|---|---|---|---|---|',
    ...rows,
    ...(machines.length > 0 ? ['', `Measured on ${machines.join('; ')}.`] : []),
    ...(missing.length > 0
      ? ['', `Not measured yet: ${missing.map(({ model, dataSet }) => `${model} on ${dataSet}`).join(', ')}.`]
      : []),
  ].join('\n')
  const page = await readFile(documents.page, 'utf8')
  const [before, rest] = page.split(marks[0])
  const after = rest?.split(marks[1])[1]
  if (before === undefined || after === undefined)
    throw new Error(
      `${documents.page}: expected the marks ${marks.join(' and ')}, received a page without them`,
    )
  await writeFileAtomic(documents.page, `${before}${marks[0]}\n\n${text}\n\n${marks[1]}${after}`)
}

function rowOf({ model, dataSet, flags: own, remark }: Recipe, trials: readonly Reached[]): string {
  const percents = trials.map(({ accuracy }) => 100 * accuracy)
  const { mean, deviation } = summarize(percents)
  const spread = deviation === undefined ? '' : ` ± ${deviation.toFixed(2)}`
  const seconds = trials.reduce((sum, one) => sum + one.seconds, 0) / trials.length
  const { epochs, threads } = trials[0]!
  return `| ${[
    model,
    dataSet,
    `${mean.toFixed(2)} %${spread}`,
    trials.length,
    epochs,
    Math.round(seconds),
    threads,
    `\`${own}\``,
    remark,
  ].join(' | ')} |`
}
