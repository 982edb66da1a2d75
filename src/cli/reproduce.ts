/** `fovea reproduce`: a paper's claims beside what its networks reach when they are trained anew. */
import { availableParallelism } from 'node:os'
import type { Command } from 'commander'
import type { DataSet } from '../data/data-set.ts'
import { openEngine } from '../runtime/node.ts'
import { estimateSeconds } from '../study/estimate.ts'
import {
  checkTrials,
  compareClaims,
  type PlannedTrial,
  planTrials,
  runTrials,
  type StudyEvent,
} from '../study/reproduce.ts'
import { writeFileAtomic } from '../train/files.ts'
import { Interrupted } from '../train/fit.ts'
import { withLock } from '../train/lock.ts'
import { foveaVersion } from '../train/version.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { architectureNamed, paperNamed, papers } from '../zoo/index.ts'
import { type Paper, type ScaleName, scaleNames } from '../zoo/paper.ts'
import { warn, warnOfOtherVersion } from './failure.ts'
import { duration, grouped, plural } from './format.ts'
import { interruptible } from './interrupt.ts'
import { loadData } from './load-data.ts'
import {
  addCommonOptions,
  addEngineOptions,
  addOptimizerOptions,
  type EngineFlags,
  type OptimizerFlags,
  oneOf,
  optimizerOf,
  refuseWithResume,
  seedList,
  wholeNumber,
} from './options.ts'
import { inFolder, inNewFolder } from './run-folder.ts'
import { StudyDisplay } from './study-display.ts'
import { lockIn, readStudy, resultIn, type Study, writeStudy } from './study-folder.ts'
import { conditionsOf, reportLines } from './study-report.ts'
import { colorsOf, widthOf } from './terminal.ts'

interface Flags extends EngineFlags, OptimizerFlags {
  readonly scale: ScaleName
  readonly seeds?: readonly number[]
  readonly epochs?: number
  readonly batchSize?: number
  readonly jobs?: number
  readonly data?: string
  readonly out?: string
  readonly resume?: string
  readonly json?: boolean
}

/** What may be given with --resume: what does not change the trials. */
const WITH_RESUME = ['resume', 'jobs', 'threads', 'device', 'data', 'json', 'verbose']

const EXAMPLES = `
Papers: ${papers.map(({ id }) => id).join(', ')}

Scales: smoke, on a small part of the data, in seconds; quick, on all images for
a few epochs, in minutes; paper, as the paper says, in hours.

Examples:
  fovea reproduce singh-brar-2024
  fovea reproduce singh-brar-2024 --scale smoke --seeds 1,2,5 --json
  fovea reproduce singh-brar-2024 --scale paper --out runs/whole-paper
  fovea reproduce --resume runs/whole-paper`

export function addReproduceCommand(program: Command): void {
  const command = program
    .command('reproduce')
    .description("train a paper's networks and compare its claims with what was measured")
    .argument('[paper]', "a paper's name")
    .option('--scale <name>', scaleNames.join(', '), oneOf('scale', scaleNames), 'quick')
    .option('--seeds <n>', 'a number of seeds, or a list as 1,2,5', seedList)
    .option('--epochs <n>', "default: the scale's", wholeNumber('--epochs', 1))
    .option('--batch-size <n>', "default: the paper's", wholeNumber('--batch-size', 1))
  addOptimizerOptions(command, "the paper's")
    .option('--jobs <n>', 'trials at a time (default: cores / threads)', wholeNumber('--jobs', 1))
    .option('--data <dir>', "a folder with the data set's files; default: cache, Debian's package, network")
    .option('--out <dir>', 'a new folder; default: runs/PAPER-SCALE')
    .option('--resume <dir>', 'go on with the study of this folder')
  addEngineOptions(command, 'threads of each trial (default: 1)')
  addCommonOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((paper: string | undefined, flags: Flags) => reproduce(paper, flags, command))
}

async function reproduce(id: string | undefined, flags: Flags, command: Command): Promise<void> {
  if (flags.resume !== undefined) return await resumeStudy(flags.resume, id, flags, command)
  if (id === undefined) {
    const known = papers.map(paper => paper.id).join(', ')
    throw new UsageError(`reproduce: expected a paper or --resume DIR; papers: ${known}`)
  }
  const paper = paperNamed(id)
  const scale = paper.scales[flags.scale]
  const optimizer = optimizerOf(flags, paper.training.optimizer)
  const dataSet = await loadData(scale.dataSet, flags.data)
  const { threads = 1, device = 'cpu' } = flags
  const study: Study = {
    fovea: foveaVersion,
    paper: id,
    scale: flags.scale,
    dataSet: { name: dataSet.name, hash: dataSet.hash },
    seeds: [...(flags.seeds ?? Array.from({ length: scale.seeds }, (_, i) => i + 1))],
    epochs: flags.epochs ?? scale.epochs,
    batchSize: flags.batchSize ?? paper.training.batchSize,
    optimizer,
    threads,
    device,
    // Also finds out, before anything is written, whether there is such a device.
    runtime: await runtimeVersion({ threads, device }),
  }
  checkTrials(planTrials(paper, scale, dataSet, '', study), dataSet)
  const work = async (folder: string) => {
    await writeStudy(folder, study)
    await runStudy(study, dataSet, folder, flags)
  }
  if (flags.out !== undefined) await inFolder(flags.out, work)
  else await inNewFolder(`runs/${id}-${flags.scale}`, work)
}

async function resumeStudy(
  folder: string,
  id: string | undefined,
  flags: Flags,
  command: Command,
): Promise<void> {
  refuseWithResume(command, WITH_RESUME)
  const study = await readStudy(folder)
  if (id !== undefined && id !== study.paper)
    throw new UsageError(`${folder} holds a study of ${study.paper}, received ${id}`)
  const { threads = study.threads, device = study.device } = flags
  if (threads !== study.threads || device !== study.device)
    warn(
      `so far the trials ran with --threads ${study.threads} --device ${study.device}, from here with --threads ${threads} --device ${device}: the last bits of their results may differ`,
    )
  const dataSet = await loadData(study.dataSet.name, flags.data)
  if (dataSet.hash !== study.dataSet.hash)
    throw new FoveaError(
      `${folder}: ${dataSet.name} from ${dataSet.source} is not the copy that its trials were trained on`,
    )
  warnOfOtherVersion('the study', `Fovea ${study.fovea}`, `Fovea ${foveaVersion}`)
  warnOfOtherVersion('the study', study.runtime, await runtimeVersion({ threads, device }))
  await runStudy({ ...study, threads, device }, dataSet, folder, flags)
}

async function runtimeVersion(options: Pick<Study, 'threads' | 'device'>): Promise<string> {
  const engine = await openEngine(options)
  await engine.close()
  return engine.version
}

async function runStudy(study: Study, dataSet: DataSet, folder: string, flags: Flags): Promise<void> {
  await withLock(lockIn(folder), folder, () => runLocked(study, dataSet, folder, flags))
}

async function runLocked(study: Study, dataSet: DataSet, folder: string, flags: Flags): Promise<void> {
  const paper = paperNamed(study.paper)
  const trials = planTrials(paper, paper.scales[study.scale], dataSet, folder, study)
  const { threads, device } = study
  const cores = device === 'cpu' ? Math.max(1, Math.floor(availableParallelism() / threads)) : 1
  const workers = Math.min(flags.jobs ?? cores, trials.length)
  const display = new StudyDisplay(trials, dataSet, workers)
  display.begin(`${paper.id}, ${study.scale}`, [
    paper.question,
    headline(study, trials, dataSet),
    `${plural(workers, 'trial')} at a time, ${plural(threads, 'thread')} each; ${folder}`,
  ])
  const open = () => openEngine({ threads, device })
  const failed: { arm: string; seed: number; message: string }[] = []
  const onEvent = (event: StudyEvent) => {
    display.event(event)
    if (event.type !== 'failed') return
    failed.push({ arm: event.trial.arm.name, seed: event.trial.seed, message: event.message })
  }
  if (study.scale === 'paper' && flags.resume === undefined) await sayEstimate(trials, dataSet, open, workers)
  try {
    display.run()
    const results = await interruptible(
      () => display.stopping(),
      signal => runTrials(trials, dataSet, { openEngine: open, workers, resume: true, onEvent, signal }),
    )
    display.end()
    const comparisons = compareClaims(paper, trials, results)
    const assumed = assumptions(paper, trials)
    const document = {
      ...study,
      citation: paper.citation,
      comparisons,
      assumed,
      remarks: paper.remarks,
      failed,
      trials: results.map(({ trial, result }) => ({ arm: trial.arm.name, ...result })),
    }
    const text = `${JSON.stringify(document, undefined, 2)}\n`
    await writeFileAtomic(resultIn(folder), text)
    if (flags.json) process.stdout.write(text)
    else {
      const place = { width: widthOf(process.stdout), colors: colorsOf(process.stdout) }
      const conditions = conditionsOf(paper, trials, dataSet)
      const lines = reportLines(paper, comparisons, conditions, assumed, place)
      process.stdout.write(`\n${lines.join('\n')}\n\nresults: ${resultIn(folder)}\n`)
    }
    if (failed.length > 0)
      throw new FoveaError(
        `${failed.length} of ${plural(trials.length, 'trial')} failed; try them again with: fovea reproduce --resume ${folder}`,
      )
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
    throw new Interrupted(
      `interrupted after ${display.ended} of ${plural(trials.length, 'trial')}, nothing is lost; go on with: fovea reproduce --resume ${folder}`,
    )
  } finally {
    display.end()
  }
}

function headline({ seeds, epochs }: Study, trials: readonly PlannedTrial[], dataSet: DataSet): string {
  const arms = trials.length / seeds.length
  return `${plural(arms, 'network')} x ${plural(seeds.length, 'seed')}, ${plural(epochs, 'epoch')} each, on ${dataSet.title} (${grouped(dataSet.train.count)} images)`
}

async function sayEstimate(
  trials: readonly PlannedTrial[],
  dataSet: DataSet,
  open: () => ReturnType<typeof openEngine>,
  workers: number,
): Promise<void> {
  const engine = await open()
  try {
    const seconds = await estimateSeconds(trials, dataSet, engine, workers)
    process.stderr.write(`  estimate: about ${duration(seconds)}; Ctrl-C keeps what is done\n\n`)
  } finally {
    await engine.close()
  }
}

/** The paper's assumptions and those of the arms and networks that were trained, each once. */
function assumptions(paper: Paper, trials: readonly PlannedTrial[]): string[] {
  const names = new Set(trials.map(({ arm }) => arm.architecture))
  return [
    ...new Set([
      ...paper.assumed,
      ...trials.flatMap(({ arm }) => arm.assumed ?? []),
      ...[...names].flatMap(name => architectureNamed(name).assumed),
    ]),
  ]
}
