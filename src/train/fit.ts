/** Training: epochs, validation, early stopping, checkpoints, and resuming from them. */
import { compileTraining, type TrainProgram } from '../compile/train-program.ts'
import type { DataSet } from '../data/data-set.ts'
import { minibatchOrder, splitTraining, type TrainingSplit } from '../data/split.ts'
import { learningRateAt } from '../nn/schedules.ts'
import type { Engine, Program } from '../runtime/engine.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { type HostTensor, sameShape, showShape } from '../util/host-tensor.ts'
import { type Checkpoint, checkResumable, type Position, saveCheckpoint } from './checkpoint.ts'
import { checkClasses, Evaluator } from './evaluate.ts'
import { checkSpec, type EpochRecord, type TrainEvent, type TrainingSpec } from './spec.ts'
import { loadWithState, stepFeeds, stepsOfCall } from './steps.ts'
import { checkStart, parameterCounts } from './transfer.ts'

export interface FitOptions {
  readonly engine: Engine
  readonly onEvent?: (event: TrainEvent) => void
  /** When it aborts, a checkpoint is written and `fit` throws {@link Interrupted}. */
  readonly signal?: AbortSignal
  /** Where to keep a checkpoint, and how often. Default: none. */
  readonly checkpoint?: { readonly path: string /** Default: 15. */; readonly everySeconds?: number }
  /** Goes on from here. */
  readonly resume?: Checkpoint
  /**
   * The values that `spec.weights` names, by the model's names. Needed where they are and nothing is resumed.
   */
  readonly weights?: Readonly<Record<string, HostTensor>>
}

export interface FitResult {
  readonly history: readonly EpochRecord[]
  /** The epoch whose parameters the result holds. */
  readonly epoch: number
  /** Trained values: parameters and buffers by name. */
  readonly values: Readonly<Record<string, HostTensor>>
  /** Number of trained values. */
  readonly parameters: number
  /** Number of values of frozen parameters. */
  readonly frozenParameters: number
  readonly programHash: string
}

/** Training was asked to stop; where there is a checkpoint, nothing is lost. */
export class Interrupted extends FoveaError {
  override name = 'Interrupted'
  override readonly exitCode = 130
}

/** A loss or a parameter is no longer a finite number. */
export class Diverged extends FoveaError {
  override name = 'Diverged'
}

/** Names of the stored data set of an engine. */
export const STORED_TRAIN = { images: 'data/train/images', labels: 'data/train/labels' }

/** Puts a data set's training images where `fit` reads them. Trials on one engine may share them. */
export async function storeTrainingImages(engine: Engine, dataSet: DataSet): Promise<void> {
  await engine.write({
    [STORED_TRAIN.images]: dataSet.train.images,
    [STORED_TRAIN.labels]: dataSet.train.labels,
  })
}

/**
 * Trains a model on the training images that the engine holds (see {@link storeTrainingImages}).
 *
 * @throws UsageError for a specification that cannot be run, Diverged, Interrupted, FoveaError
 */
export async function fit(spec: TrainingSpec, dataSet: DataSet, options: FitOptions): Promise<FitResult> {
  checkSpec(spec)
  if (options.resume) checkResumable(options.checkpoint?.path ?? 'resume', options.resume, spec)
  const split = splitTraining(dataSet.train.labels, dataSet.classes.length, {
    ...spec.split,
    seed: spec.seed,
  })
  if (spec.batchSize > split.train.length)
    throw new UsageError(
      `train: expected a batch size of at most the ${split.train.length} images that are trained on, received ${spec.batchSize}`,
    )
  checkClasses(spec.model, dataSet)
  const trainer = new Trainer(spec, dataSet.classes, split, options)
  try {
    return await trainer.run()
  } finally {
    await trainer.release()
  }
}

/** One trial under way. */
class Trainer {
  private readonly spec: TrainingSpec
  private readonly classes: readonly string[]
  private readonly split: TrainingSplit
  private readonly options: FitOptions
  private readonly engine: Engine
  private readonly evaluator: Evaluator
  private readonly programs: { compiled: TrainProgram; program: Program }[] = []
  private position: Position = {
    epoch: 0,
    step: 0,
    updates: 0,
    running: { loss: 0, correct: 0, images: 0, seconds: 0 },
    history: [],
    best: undefined,
  }
  private best: Readonly<Record<string, HostTensor>> | undefined
  private savedAt = performance.now()
  /** What the checkpoint has. */
  private saved: Position | undefined
  private secondsPerStep = 0

  constructor(spec: TrainingSpec, classes: readonly string[], split: TrainingSplit, options: FitOptions) {
    this.spec = spec
    this.classes = classes
    this.split = split
    this.options = options
    this.engine = options.engine
    this.evaluator = new Evaluator(options.engine, spec)
  }

  async run(): Promise<FitResult> {
    const compiled = await this.start()
    // At once, so that a run killed at any moment can be resumed.
    if (!this.options.resume) await this.save()
    const counts = parameterCounts(compiled)
    this.emit({
      type: 'begin',
      ...counts,
      trainImages: this.split.train.length,
      validationImages: this.split.validation.length,
      stepsPerEpoch: this.stepsPerEpoch,
      epoch: this.position.epoch,
      step: this.position.step,
    })
    while (!this.finished) await this.epoch(compiled)
    await this.save()
    if (this.best) await this.engine.write(this.best)
    const values = this.best ?? (await this.engine.read(this.valueNames(compiled)))
    return {
      history: this.position.history,
      epoch: this.position.best?.epoch ?? this.position.epoch,
      values,
      ...counts,
      programHash: compiled.hash,
    }
  }

  async release(): Promise<void> {
    for (const { program } of this.programs) await program.release()
    await this.evaluator.release()
  }

  private get stepsPerEpoch(): number {
    return Math.ceil(this.split.train.length / this.spec.batchSize)
  }

  private get finished(): boolean {
    const { epoch, step } = this.position
    return step === 0 && (epoch >= this.spec.epochs || this.outOfPatience)
  }

  private get outOfPatience(): boolean {
    const { earlyStopping } = this.spec
    const { epoch, best } = this.position
    const waited = best ? epoch - best.epoch : 0
    return waited > 0 && waited >= (earlyStopping?.patience ?? Number.POSITIVE_INFINITY)
  }

  /** Puts the program of whole minibatches into the engine, and the state to start from. */
  private async start(): Promise<TrainProgram> {
    const { spec } = this
    const { resume, weights } = this.options
    if (!resume) checkStart(spec, weights)
    const compiled = compileTraining(spec)
    for (const { name, shape } of resume ? compiled.state : []) {
      const saved = resume?.state[name]
      if (!saved || !sameShape(saved.shape, shape))
        throw new FoveaError(
          `${this.options.checkpoint?.path ?? 'resume'}: expected "${name}" of shape ${showShape(shape)}, received ${saved ? showShape(saved.shape) : 'none'}`,
        )
    }
    const program = await loadWithState(this.engine, compiled, spec.seed, resume?.state ?? weights)
    this.programs.push({ compiled, program })
    if (resume) {
      this.position = resume.position
      this.best = resume.best
    }
    return compiled
  }

  private async epoch(compiled: TrainProgram): Promise<void> {
    const { spec, split, stepsPerEpoch } = this
    const { epoch } = this.position
    const order = minibatchOrder(split.train, spec.seed, epoch)
    if (this.position.step === 0) await this.redraw(compiled, epoch)
    while (this.position.step < stepsPerEpoch) await this.chunk(order)
    const { running } = this.position
    const validation =
      split.validation.length > 0 ? await this.evaluator.evaluate(STORED_TRAIN, split.validation) : undefined
    if (validation && !Number.isFinite(validation.loss))
      throw this.diverged(`the validation loss is ${validation.loss} after epoch ${epoch + 1}`)
    const record: EpochRecord = {
      epoch: epoch + 1,
      learningRate: learningRateAt(spec.optimizer.learningRate, this.position.updates - 1),
      trainLoss: running.loss / running.images,
      trainAccuracy: running.correct / running.images,
      ...(validation ? { validationLoss: validation.loss, validationAccuracy: validation.accuracy } : {}),
      seconds: running.seconds,
      imagesPerSecond: running.images / running.seconds,
    }
    await this.keepBest(record, compiled)
    this.position = {
      ...this.position,
      epoch: epoch + 1,
      step: 0,
      running: { loss: 0, correct: 0, images: 0, seconds: 0 },
      history: [...this.position.history, record],
    }
    this.emit({ type: 'epoch', record, epochs: spec.epochs })
    if (this.outOfPatience)
      this.emit({ type: 'stopped', epoch: epoch + 1, bestEpoch: this.position.best?.epoch ?? epoch + 1 })
    await this.saveWhenDue()
  }

  /** Some steps in one call of the runtime. */
  private async chunk(order: Int32Array): Promise<void> {
    const { spec, position, stepsPerEpoch } = this
    const { batchSize } = spec
    const wholeSteps = Math.floor(order.length / batchSize)
    const last = position.step >= wholeSteps
    const size = last ? order.length - wholeSteps * batchSize : batchSize
    const { compiled, program } = await this.program(size)
    const wanted = stepsOfCall(compiled, this.secondsPerStep)
    const steps = last ? 1 : Math.min(wanted, wholeSteps - position.step)
    const began = performance.now()
    const from = position.step * batchSize
    const result = await program.run({
      feeds: stepFeeds(compiled, spec, order.slice(from, from + steps * size), position.updates),
      bind: STORED_TRAIN,
      keep: compiled.keep,
    })
    const seconds = (performance.now() - began) / 1000
    if (!last) this.secondsPerStep = seconds / steps
    const running = this.added(result, steps, size, seconds)
    this.position = {
      ...position,
      step: position.step + steps,
      updates: position.updates + steps,
      running,
    }
    const done = (this.position.epoch * stepsPerEpoch + this.position.step) / stepsPerEpoch
    this.emit({
      type: 'progress',
      epoch: position.epoch + 1,
      epochs: spec.epochs,
      step: this.position.step,
      stepsPerEpoch,
      loss: running.loss / running.images,
      accuracy: running.correct / running.images,
      imagesPerSecond: running.images / running.seconds,
      secondsLeft: ((spec.epochs - done) * order.length * running.seconds) / running.images,
    })
    if (this.options.signal?.aborted) await this.interrupt()
    await this.saveWhenDue()
  }

  /** The epoch's sums with a call's results. Throws where a loss or a parameter is not finite. */
  private added(result: Record<string, HostTensor>, steps: number, size: number, seconds: number) {
    const { running, step, epoch } = this.position
    const losses = result.loss!.data as Float32Array
    const correct = result.correct!.data as Float32Array
    let loss = running.loss
    let right = running.correct
    for (let i = 0; i < steps; i++) {
      if (!Number.isFinite(losses[i]))
        throw this.diverged(`the loss is ${losses[i]} at epoch ${epoch + 1}, step ${step + i + 1}`)
      loss += losses[i]! * size
      right += correct[i]!
    }
    if (!Number.isFinite(result.finite!.data[0]))
      throw this.diverged(
        `a parameter is not finite at epoch ${epoch + 1}, between steps ${step + 1} and ${step + steps}`,
      )
    return {
      loss,
      correct: right,
      images: running.images + steps * size,
      seconds: running.seconds + seconds,
    }
  }

  private diverged(what: string): Diverged {
    const rate = learningRateAt(this.spec.optimizer.learningRate, this.position.updates)
    return new Diverged(
      `training of "${this.spec.model.name}" diverged: ${what} (learning rate ${rate}); expected finite numbers: try a lower learning rate, or clipping`,
    )
  }

  private async keepBest(record: EpochRecord, compiled: TrainProgram): Promise<void> {
    const { earlyStopping } = this.spec
    if (!earlyStopping) return
    const { monitor, minDelta = 0 } = earlyStopping
    const value = monitor === 'loss' ? -record.validationLoss! : record.validationAccuracy!
    if (this.position.best && value <= this.position.best.value + minDelta) return
    this.best = await this.engine.read(this.valueNames(compiled))
    this.position = { ...this.position, best: { epoch: record.epoch, value } }
  }

  /** Buffers that are drawn anew before each epoch. */
  private async redraw({ state }: TrainProgram, epoch: number): Promise<void> {
    const drawn = state.filter(tensor => tensor.redraw)
    if (drawn.length === 0) return
    await this.engine.write(
      Object.fromEntries(
        drawn.map(({ name, shape, initial }) => [
          name,
          { dtype: 'float32', shape, data: initial(this.spec.seed, epoch) } as HostTensor,
        ]),
      ),
    )
  }

  private valueNames({ state }: TrainProgram): string[] {
    return state.filter(tensor => tensor.kind !== 'slot').map(tensor => tensor.name)
  }

  private async program(batchSize: number): Promise<{ compiled: TrainProgram; program: Program }> {
    const known = this.programs.find(({ compiled }) => compiled.batchSize === batchSize)
    if (known) return known
    const compiled = compileTraining({ ...this.spec, batchSize })
    const made = { compiled, program: await this.engine.load(compiled.bytes) }
    this.programs.push(made)
    return made
  }

  private async interrupt(): Promise<never> {
    await this.save()
    const { epoch, step } = this.position
    const { checkpoint } = this.options
    const kept = checkpoint ? `; the checkpoint ${checkpoint.path} has everything up to here` : ''
    throw new Interrupted(`interrupted at epoch ${epoch + 1}, step ${step}${kept}`)
  }

  private async saveWhenDue(): Promise<void> {
    const { checkpoint } = this.options
    if (checkpoint && performance.now() - this.savedAt >= (checkpoint.everySeconds ?? 15) * 1000)
      await this.save()
  }

  private async save(): Promise<void> {
    const { checkpoint } = this.options
    if (!checkpoint || this.saved === this.position) return
    const names = this.programs[0]!.compiled.state.map(tensor => tensor.name)
    const state = await this.engine.read(names)
    const { device, threads, version } = this.engine
    await saveCheckpoint(checkpoint.path, {
      spec: this.spec,
      classes: this.classes,
      engine: { device, threads, version },
      position: this.position,
      state,
      best: this.best,
    })
    this.savedAt = performance.now()
    this.saved = this.position
    this.emit({ type: 'checkpoint', path: checkpoint.path })
  }

  private emit(event: TrainEvent): void {
    this.options.onEvent?.(event)
  }
}
