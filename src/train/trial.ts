/** One trial in a folder of its own: train, keep a checkpoint, read the test split once at the end. */
import { readFile, stat } from 'node:fs/promises'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import type { DataSet } from '../data/data-set.ts'
import { makeFolder } from '../data/make-folder.ts'
import type { Engine } from '../runtime/engine.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { checkpointIn, loadCheckpoint } from './checkpoint.ts'
import { Evaluator } from './evaluate.ts'
import { removeUnfinished, writeFileAtomic } from './files.ts'
import { type FitOptions, fit, storeTrainingImages } from './fit.ts'
import { withLock } from './lock.ts'
import { type EpochRecord, type LoadedWeights, specHash, type TrainingSpec } from './spec.ts'
import { weightsOf } from './transfer.ts'
import { foveaVersion } from './version.ts'

/** Where something was measured. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly platform: string
  readonly node: string
}

export function thisMachine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
  }
}

/** The document that a finished trial leaves as `result.json`, and that `fovea train --json` prints. */
export interface TrialResult {
  readonly fovea: string
  readonly model: string
  readonly dataSet: { readonly name: string; readonly hash: string; readonly source: string }
  readonly seed: number
  /** Number of trained values. */
  readonly parameters: number
  /** Number of values of frozen parameters, where layers are frozen. */
  readonly frozenParameters?: number
  /** What the trial started from, where that was not the seed alone. */
  readonly weights?: LoadedWeights
  readonly epochs: readonly EpochRecord[]
  /** The epoch whose parameters were kept and tested. */
  readonly epoch: number
  readonly test: { readonly images: number; readonly loss: number; readonly accuracy: number }
  /** Seconds of training, without validation, test and loading. */
  readonly seconds: number
  readonly checkpoint: string
  readonly device: string
  readonly threads: number
  readonly runtime: string
  readonly programHash: string
  readonly specHash: string
  readonly machine: Machine
  readonly spec: TrainingSpec
}

export interface TrialOptions extends Pick<FitOptions, 'engine' | 'onEvent' | 'signal'> {
  /** Made where it does not exist. */
  readonly directory: string
  /**
   * Go on from the folder's checkpoint, if it has one. Default: false: a folder that holds a trial is
   * refused.
   */
  readonly resume?: boolean
  /** Between checkpoints. Default: 15. */
  readonly everySeconds?: number
  /**
   * The values of `spec.weights`, where they are at hand. Default: read from their source when the trial
   * begins.
   */
  readonly weights?: FitOptions['weights']
}

const resultIn = (directory: string): string => join(directory, 'result.json')

/** What is read of a result that was written before; the rest only goes back into a document. */
const resultSchema = z.looseObject({
  specHash: z.string(),
  seed: z.number(),
  parameters: z.number(),
  epochs: z.array(z.looseObject({ trainAccuracy: z.number(), imagesPerSecond: z.number() })).min(1),
  test: z.looseObject({ images: z.number(), loss: z.number(), accuracy: z.number() }),
  seconds: z.number(),
})

const STORED_TEST = { images: 'data/test/images', labels: 'data/test/labels' }

/**
 * Runs a trial, or goes on with it. A trial that has ended already is not run again: its result is read.
 *
 * @throws UsageError where the folder holds a trial and `resume` was not asked for, or where another
 *   process is at work in
 *   it; otherwise as `fit`
 */
export async function runTrial(
  spec: TrainingSpec,
  dataSet: DataSet,
  options: TrialOptions,
): Promise<TrialResult> {
  const { directory, resume = false } = options
  if (spec.dataSet.hash !== dataSet.hash)
    throw new FoveaError(
      `${directory}: expected the data set "${spec.dataSet.name}" with the hash ${spec.dataSet.hash}, received ${dataSet.hash} from ${dataSet.source}`,
    )
  const ended = resume ? await readResult(directory) : undefined
  // The folder may have been moved since.
  if (ended?.specHash === specHash(spec)) return { ...ended, checkpoint: checkpointIn(directory) }
  await makeFolder(directory)
  const lock = join(directory, 'trial.lock')
  return await withLock(lock, directory, () => runLocked(spec, dataSet, options))
}

async function runLocked(spec: TrainingSpec, dataSet: DataSet, options: TrialOptions): Promise<TrialResult> {
  const { directory, engine, resume = false, everySeconds } = options
  const path = checkpointIn(directory)
  const exists = await stat(path).then(
    () => true,
    () => false,
  )
  if (exists && !resume)
    throw new UsageError(`${directory} holds a trial already; expected a new folder, or to resume it`)
  await storeTrainingImages(engine, dataSet)
  const checkpoint = exists ? await loadCheckpoint(path) : undefined
  if (resume) await removeUnfinished(path)
  const weights = checkpoint ? undefined : (options.weights ?? (await weightsOf(spec)))
  const fitted = await fit(spec, dataSet, {
    engine,
    checkpoint: { path, ...(everySeconds === undefined ? {} : { everySeconds }) },
    ...(options.onEvent ? { onEvent: options.onEvent } : {}),
    ...(options.signal ? { signal: options.signal } : {}),
    ...(checkpoint ? { resume: checkpoint } : {}),
    ...(weights ? { weights } : {}),
  })
  const test = await evaluateTest(engine, spec, dataSet)
  const result: TrialResult = {
    fovea: foveaVersion,
    model: spec.model.name,
    dataSet: { name: dataSet.name, hash: dataSet.hash, source: dataSet.source },
    seed: spec.seed,
    parameters: fitted.parameters,
    ...(spec.frozen ? { frozenParameters: fitted.frozenParameters } : {}),
    ...(spec.weights ? { weights: spec.weights } : {}),
    epochs: fitted.history,
    epoch: fitted.epoch,
    test,
    seconds: fitted.history.reduce((sum, record) => sum + record.seconds, 0),
    checkpoint: path,
    device: engine.device,
    threads: engine.threads,
    runtime: engine.version,
    programHash: fitted.programHash,
    specHash: specHash(spec),
    machine: thisMachine(),
    spec,
  }
  await writeFileAtomic(resultIn(directory), `${JSON.stringify(result, undefined, 2)}\n`)
  return result
}

/** The result of a trial that has ended, or undefined. */
async function readResult(directory: string): Promise<TrialResult | undefined> {
  const path = resultIn(directory)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
    throw new FoveaError(`${path}: cannot be read (${error.code ?? error.message})`)
  })
  if (text === undefined) return undefined
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new FoveaError(`${path}: not JSON: the result is damaged; remove it to have it made again`)
  }
  const parsed = resultSchema.safeParse(value)
  if (parsed.success) return value as TrialResult
  const [issue] = parsed.error.issues
  throw new FoveaError(
    `${path}: the result is damaged at "${issue?.path.join('.')}": ${issue?.message}; remove it to have it made again`,
  )
}

/** Evaluates the model that an engine holds on a data set's test split. */
export async function evaluateTest(
  engine: Engine,
  spec: Pick<TrainingSpec, 'model' | 'loss' | 'frozen' | 'convolution'>,
  dataSet: DataSet,
): Promise<TrialResult['test']> {
  const { images, labels, count } = dataSet.test
  await engine.write({ [STORED_TEST.images]: images, [STORED_TEST.labels]: labels })
  const evaluator = new Evaluator(engine, spec)
  try {
    const all = Int32Array.from({ length: count }, (_, i) => i)
    const { loss, accuracy } = await evaluator.evaluate(STORED_TEST, all)
    return { images: count, loss, accuracy }
  } finally {
    await evaluator.release()
    await engine.free(Object.values(STORED_TEST))
  }
}
