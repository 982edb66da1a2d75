/** `fovea train`: one model, one data set, one seed. */
import { dirname } from 'node:path'
import type { Command } from 'commander'
import type { DataSet } from '../data/data-set.ts'
import { splitTraining } from '../data/split.ts'
import type { Augmentation } from '../nn/augment/descriptions.ts'
import { adam } from '../nn/optimizers.ts'
import type { Engine } from '../runtime/engine.ts'
import type { Checkpoint } from '../train/checkpoint.ts'
import { Interrupted } from '../train/fit.ts'
import { checkSpec, type TrainingSpec, trainingSpec } from '../train/spec.ts'
import { runTrial, type TrialResult } from '../train/trial.ts'
import { UsageError } from '../util/errors.ts'
import { architectureNamed, architectures } from '../zoo/index.ts'
import { addAugmentOption } from './augmentation.ts'
import { warn, warnOfOtherVersion } from './failure.ts'
import { duration, grouped, lossText, percent } from './format.ts'
import { interruptible } from './interrupt.ts'
import { loadData } from './load-data.ts'
import {
  addCommonOptions,
  addConvolutionOption,
  addEngineOptions,
  addOptimizerOptions,
  addSkipOption,
  type ConvolutionFlag,
  type EngineFlags,
  number,
  type OptimizerFlags,
  optimizerOf,
  refuseWithResume,
  wholeNumber,
} from './options.ts'
import { inFolder, inNewFolder, openRun } from './run-folder.ts'
import { addScheduleOptions, type ScheduleFlags, scheduled } from './schedule.ts'
import { colorsOf } from './terminal.ts'
import { TrainDisplay } from './train-display.ts'
import { addTransferOptions, type Transfer, type TransferFlags, transferOf } from './transfer.ts'
import { withEngine } from './with-engine.ts'

interface Flags extends ConvolutionFlag, EngineFlags, OptimizerFlags, ScheduleFlags, TransferFlags {
  readonly model?: string
  readonly dataset: string
  readonly data?: string
  readonly skipUndecodable?: boolean
  readonly epochs: number
  readonly batchSize: number
  readonly seed: number
  readonly fraction: number
  readonly validation: number
  readonly earlyStopping?: number
  readonly augment?: readonly Augmentation[]
  readonly out?: string
  readonly resume?: string
  readonly checkpointEvery: number
  readonly json?: boolean
}

/** What may be given with --resume: what does not define the trial, and the number of epochs. */
const WITH_RESUME = [
  'resume',
  'epochs',
  'threads',
  'device',
  'data',
  'skipUndecodable',
  'checkpointEvery',
  'json',
  'verbose',
]

const EXAMPLES = `
Examples:
  fovea train --model singh-brar/basic --epochs 5
  fovea train --model singh-brar/sparse --optimizer sgd --learning-rate 0.1
  fovea train --model singh-brar/basic --seed 7 --json > result.json
  fovea train --model resnet20 --dataset cifar-10 --augment crop:4,flip \\
    --batch-size 64 --epochs 20 --optimizer sgd --learning-rate 0.05 \\
    --momentum 0.9 --nesterov --weight-decay 5e-3 --schedule cosine
  fovea train --model resnet20 --dataset cifar-10 --weights runs/cifar-100
  fovea train --resume runs/singh-brar-basic_fashion-mnist_seed-1 --epochs 20

Ctrl-C writes a checkpoint; --resume goes on from it as if nothing had happened.`

export function addTrainCommand(program: Command): void {
  const command = program
    .command('train')
    .description('train a model, keep checkpoints, and test it at the end')
    .option('--model <name>', 'what to train; fovea models lists the names')
    .option(
      '--dataset <name>',
      'what to train on: a name that fovea datasets lists, or folder:PATH',
      'fashion-mnist',
    )
    .option('--data <dir>', "a folder with the data set's files; default: cache, Debian's package, network")
  addSkipOption(command)
    .option('--epochs <n>', 'passes over the training images', wholeNumber('--epochs', 1), 10)
    .option('--batch-size <n>', 'images of one step', wholeNumber('--batch-size', 1), 32)
  addScheduleOptions(addOptimizerOptions(command, 'adam'))
    .option('--seed <n>', 'draws weights, split, order and masks', wholeNumber('--seed', 0), 1)
    .option('--fraction <x>', 'share of the training images to train on', number('--fraction', 0), 1)
    .option('--validation <x>', 'a share (below 1) or a number of images', number('--validation', 0), 0.1)
    .option(
      '--early-stopping <epochs>',
      'stop after so many epochs without a lower validation loss, keep the best',
      wholeNumber('--early-stopping', 0),
    )
  addAugmentOption(command)
    .option('--out <dir>', 'a new folder; default: runs/MODEL_DATASET_seed-N')
    .option('--resume <dir>', 'go on with the trial of this folder')
    .option('--checkpoint-every <seconds>', 'time between checkpoints', number('--checkpoint-every', 0), 15)
  addConvolutionOption(addTransferOptions(command))
  addEngineOptions(command, 'threads of one step (default: all cores)')
  addCommonOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((flags: Flags) => train(flags, command))
}

async function train(flags: Flags, command: Command): Promise<void> {
  const result =
    flags.resume === undefined ? await trainNew(flags) : await trainOn(flags.resume, flags, command)
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`)
    return
  }
  const { bold } = colorsOf(process.stdout)
  const { test, seconds, checkpoint } = result
  process.stdout.write(
    `test accuracy ${bold(percent(test.accuracy))}, loss ${lossText(test.loss)} on ${grouped(test.images)} images\n` +
      `${duration(seconds)} of training, kept in ${dirname(checkpoint)}\n`,
  )
}

async function trainNew(flags: Flags): Promise<TrialResult> {
  const { model, dataset, batchSize, epochs, seed, fraction, validation, earlyStopping: patience } = flags
  if (model === undefined) {
    const names = architectures.map(({ name }) => name)
    throw new UsageError(`train: expected --model NAME or --resume DIR; models: ${names.join(', ')}`)
  }
  const { augment: augmentation, convolution } = flags
  const architecture = architectureNamed(model)
  const optimizer = optimizerOf(flags, adam())
  return await withEngine(flags, async opening => {
    const dataSet = await loadData(dataset, flags.data, flags.skipUndecodable)
    const transfer = await transferOf(flags, architecture, dataSet)
    const split = { fraction, validation }
    const images = splitTraining(dataSet.train.labels, dataSet.classes.length, { ...split, seed }).train
      .length
    const spec = trainingSpec(transfer.model, dataSet, {
      ...transfer.options,
      split,
      optimizer: scheduled(optimizer, flags, epochs, Math.ceil(images / batchSize)),
      batchSize,
      epochs,
      seed,
      ...(augmentation === undefined ? {} : { augmentation }),
      ...(convolution === undefined ? {} : { convolution }),
      ...(patience === undefined ? {} : { earlyStopping: { monitor: 'loss', patience } }),
    })
    checkSpec(spec)
    for (const remark of transfer.remarks) process.stderr.write(`${remark}\n`)
    const { values } = transfer
    const work = (folder: string) =>
      run(spec, dataSet, folder, opening, { ...flags, ...(values ? { values } : {}) })
    if (flags.out !== undefined) return await inFolder(flags.out, work)
    const flat = (name: string) => name.replaceAll(/[\\/:]+/g, '-')
    return await inNewFolder(`runs/${flat(model)}_${flat(dataset)}_seed-${seed}`, work)
  })
}

/** Goes on with a trial on as many threads and on the device that it had, unless others are asked for. */
async function trainOn(folder: string, flags: Flags, command: Command): Promise<TrialResult> {
  refuseWithResume(command, WITH_RESUME)
  const { spec, engine, position } = await openRun(folder)
  const epochs = command.getOptionValueSource('epochs') === 'cli' ? flags.epochs : spec.epochs
  if (epochs < position.epoch)
    throw new UsageError(`--epochs: expected at least ${position.epoch}, which are done, received ${epochs}`)
  if (epochs > spec.epochs && typeof spec.optimizer.learningRate !== 'number')
    warn(`the learning rate was to fall over ${spec.epochs} epochs, and stays where it ended`)
  const { threads = engine.threads, device = engine.device } = flags
  warnOfOthers(engine, threads, device)
  return await withEngine({ threads, device }, async opening => {
    const dataSet = await loadData(spec.dataSet.name, flags.data, flags.skipUndecodable)
    return await run({ ...spec, epochs }, dataSet, folder, opening, flags, engine.version)
  })
}

function warnOfOthers(engine: Checkpoint['engine'], threads: number, device: string): void {
  if (threads === engine.threads && device === engine.device) return
  const show = (t: number, d: string) => `${t} ${t === 1 ? 'thread' : 'threads'} on ${d}`
  warn(
    `so far the trial ran with ${show(engine.threads, engine.device)}, from here with ${show(threads, device)}: the last bits of its results may differ`,
  )
}

async function run(
  spec: TrainingSpec,
  dataSet: DataSet,
  directory: string,
  opening: Promise<Engine>,
  {
    resume,
    checkpointEvery,
    values,
  }: Pick<Flags, 'resume' | 'checkpointEvery'> & { values?: Transfer['values'] },
  before?: string,
): Promise<TrialResult> {
  const title = `${spec.model.name} on ${dataSet.title}, seed ${spec.seed}`
  const display = new TrainDisplay(title, directory)
  const engine = await opening
  warnOfOtherVersion('the trial', before, engine.version)
  try {
    return await interruptible(
      () => display.stopping(),
      signal =>
        runTrial(spec, dataSet, {
          engine,
          directory,
          resume: resume !== undefined,
          everySeconds: checkpointEvery,
          ...(values ? { weights: values } : {}),
          onEvent: event => display.event(event),
          signal,
        }),
    )
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
    throw new Interrupted(`interrupted, nothing is lost; go on with: fovea train --resume ${directory}`)
  } finally {
    display.end()
  }
}
