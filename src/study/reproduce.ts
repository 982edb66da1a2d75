/**
 * A paper's protocol as trials, a pool of engines that runs them, and its claims beside what was measured.
 */
import { join } from 'node:path'
import { compileTraining } from '../compile/train-program.ts'
import type { DataSet } from '../data/data-set.ts'
import { splitTraining } from '../data/split.ts'
import type { Engine } from '../runtime/engine.ts'
import { type Summary, summarize } from '../stats/summary.ts'
import { Interrupted } from '../train/fit.ts'
import { checkSpec, type TrainEvent, type TrainingSpec, trainingSpec } from '../train/spec.ts'
import { runTrial, type TrialResult } from '../train/trial.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { architectureNamed } from '../zoo/index.ts'
import type { Arm, Claim, Paper, Scale } from '../zoo/paper.ts'

/** What a user may change of a paper's scale. */
export interface Changes {
  readonly seeds?: readonly number[]
  readonly epochs?: number
  readonly batchSize?: number
  readonly optimizer?: TrainingSpec['optimizer']
}

/** An arm with a seed, to be run in a folder. */
export interface PlannedTrial {
  readonly arm: Arm
  readonly seed: number
  readonly spec: TrainingSpec
  readonly directory: string
}

/** All trials of a paper at a scale: every arm with the first seed, then with the second, and so on. */
export function planTrials(
  paper: Paper,
  scale: Scale,
  dataSet: DataSet,
  directory: string,
  changes: Changes = {},
): PlannedTrial[] {
  const { training } = paper
  const seeds = changes.seeds ?? Array.from({ length: scale.seeds }, (_, i) => i + 1)
  const arms = paper.arms.filter(arm => scale.arms.includes(arm.name))
  return seeds.flatMap(seed =>
    arms.map(arm => ({
      arm,
      seed,
      directory: join(directory, arm.name.replace(/[^a-z0-9-]+/g, '-').replace(/-$/, ''), `seed-${seed}`),
      spec: trainingSpec(
        architectureNamed(arm.architecture).build(dataSet.imageShape, dataSet.classes.length),
        dataSet,
        {
          split: { fraction: arm.fraction, validation: training.validation },
          loss: training.loss,
          optimizer: changes.optimizer ?? training.optimizer,
          batchSize: changes.batchSize ?? training.batchSize,
          epochs: changes.epochs ?? scale.epochs,
          seed,
          ...(training.test === 'best epoch' ? { earlyStopping: { monitor: 'accuracy' as const } } : {}),
        },
      ),
    })),
  )
}

/**
 * Finds out, before anything is written, whether all trials of a plan can be begun.
 *
 * @throws UsageError where one cannot
 */
export function checkTrials(trials: readonly PlannedTrial[], dataSet: DataSet): void {
  for (const { spec } of trials) checkSpec(spec)
  // Neither the sizes of a split nor the program depend on the seed.
  for (const { arm, seed, spec } of trials.filter(({ seed }) => seed === trials[0]!.seed)) {
    const { train } = splitTraining(dataSet.train.labels, dataSet.classes.length, { ...spec.split, seed })
    if (spec.batchSize > train.length)
      throw new UsageError(
        `${arm.name}: expected a batch size of at most the ${train.length} images that are trained on, received ${spec.batchSize}`,
      )
    compileTraining(spec)
  }
}

/** What happens to a trial of a pool. */
export type StudyEvent =
  | { readonly type: 'begin'; readonly trial: PlannedTrial }
  | { readonly type: 'train'; readonly trial: PlannedTrial; readonly event: TrainEvent }
  | { readonly type: 'end'; readonly trial: PlannedTrial; readonly result: TrialResult }
  | { readonly type: 'failed'; readonly trial: PlannedTrial; readonly message: string }

export interface PoolOptions {
  /** Opens an engine; each runs one trial at a time. */
  readonly openEngine: () => Promise<Engine>
  /** Trials at a time. */
  readonly workers: number
  /** Go on from the checkpoints that the folders hold. */
  readonly resume: boolean
  readonly onEvent?: (event: StudyEvent) => void
  readonly signal?: AbortSignal
}

/** A trial that has ended well. */
export interface EndedTrial {
  readonly trial: PlannedTrial
  readonly result: TrialResult
}

/**
 * Runs trials on a pool of engines. A trial that fails (diverges, or its engine's process dies) does not end
 * the others; an interruption, a wrong request or a fault of Fovea ends all, each at its checkpoint.
 *
 * @returns the results of the trials that ended well, in the plan's order
 */
export async function runTrials(
  trials: readonly PlannedTrial[],
  dataSet: DataSet,
  options: PoolOptions,
): Promise<readonly EndedTrial[]> {
  const waiting = [...trials]
  const ended: EndedTrial[] = []
  const emit = options.onEvent ?? (() => {})
  const stop = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal

  const attempt = async (trial: PlannedTrial, engine: Engine): Promise<boolean> => {
    emit({ type: 'begin', trial })
    try {
      const result = await runTrial(trial.spec, dataSet, {
        engine,
        directory: trial.directory,
        resume: options.resume,
        onEvent: event => emit({ type: 'train', trial, event }),
        signal,
      })
      ended.push({ trial, result })
      emit({ type: 'end', trial, result })
      return true
    } catch (error) {
      if (!(error instanceof FoveaError) || error instanceof Interrupted || error.exitCode === 2) throw error
      emit({ type: 'failed', trial, message: error.message })
      return false
    }
  }

  const worker = async () => {
    let engine = await options.openEngine()
    try {
      for (let trial = waiting.shift(); trial; trial = waiting.shift()) {
        if (signal.aborted) throw new Interrupted('interrupted between two trials')
        const good = await attempt(trial, engine)
        if (good || waiting.length === 0) continue
        // It may be dead, or hold what the failed trial left.
        await engine.close()
        engine = await options.openEngine()
      }
    } finally {
      await engine.close()
    }
  }

  // The first to throw says why; the others only follow.
  const causes: unknown[] = []
  const workers = Array.from({ length: Math.min(options.workers, trials.length) }, () =>
    worker().catch((error: unknown) => {
      causes.push(error)
      stop.abort()
    }),
  )
  await Promise.all(workers)
  if (causes.length > 0) throw causes[0]
  return ended.sort((a, b) => trials.indexOf(a.trial) - trials.indexOf(b.trial))
}

/** A claim beside what was measured. */
export interface Comparison {
  readonly arm: string
  readonly claim: Claim | undefined
  /** Test accuracies by seed, fractions. */
  readonly accuracies: readonly { readonly seed: number; readonly accuracy: number }[]
  readonly test: Summary | undefined
  /** Training accuracy of the last epoch. */
  readonly train: Summary | undefined
  readonly parameters: number | undefined
  readonly imagesPerSecond: number | undefined
}

/** One line for each arm that was run, in the paper's order. */
export function compareClaims(
  paper: Paper,
  trials: readonly PlannedTrial[],
  results: readonly EndedTrial[],
): Comparison[] {
  const arms = paper.arms.filter(arm => trials.some(trial => trial.arm.name === arm.name))
  return arms.map(arm => {
    const mine = results
      .filter(({ trial }) => trial.arm.name === arm.name)
      .sort((a, b) => a.trial.seed - b.trial.seed)
      .map(({ result }) => result)
    const some = mine.length > 0
    return {
      arm: arm.name,
      claim: paper.claims.find(claim => claim.arm === arm.name),
      accuracies: mine.map(({ seed, test }) => ({ seed, accuracy: test.accuracy })),
      test: some ? summarize(mine.map(({ test }) => test.accuracy)) : undefined,
      train: some ? summarize(mine.map(({ epochs }) => epochs.at(-1)!.trainAccuracy)) : undefined,
      parameters: mine[0]?.parameters,
      imagesPerSecond: some
        ? summarize(mine.map(({ epochs }) => epochs.at(-1)!.imagesPerSecond)).mean
        : undefined,
    }
  })
}
