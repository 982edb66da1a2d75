/** `fovea profile`: where the time of a training step goes. */
import type { Command } from 'commander'
import type { Augmentation } from '../nn/augment/descriptions.ts'
import { adam } from '../nn/optimizers.ts'
import { profileTraining } from '../train/profile.ts'
import { trainingSpec } from '../train/spec.ts'
import { thisMachine } from '../train/trial.ts'
import { foveaVersion } from '../train/version.ts'
import { UsageError } from '../util/errors.ts'
import { architectureNamed, architectures } from '../zoo/index.ts'
import { addAugmentOption } from './augmentation.ts'
import { loadData } from './load-data.ts'
import {
  addCommonOptions,
  addConvolutionOption,
  addOptimizerOptions,
  addSkipOption,
  type ConvolutionFlag,
  type OptimizerFlags,
  optimizerOf,
  wholeNumber,
} from './options.ts'
import { type ProfileDocument, profileReport } from './profile-report.ts'
import { addTransferOptions, type TransferFlags, transferOf } from './transfer.ts'
import { withEngine } from './with-engine.ts'

interface Flags extends ConvolutionFlag, OptimizerFlags, TransferFlags {
  readonly model?: string
  readonly dataset: string
  readonly data?: string
  readonly skipUndecodable?: boolean
  readonly batchSize: number
  readonly augment?: readonly Augmentation[]
  readonly steps?: number
  readonly threads?: number
  readonly json?: boolean
}

const NOTES = `
Runs some training steps twice, without ONNX Runtime's profiler and with it, and
keeps nothing. Options are those of fovea train. --json prints every node.

Examples:
  fovea profile --model singh-brar/basic
  fovea profile --model resnet20 --dataset cifar-10 --batch-size 128 --threads 1`

export function addProfileCommand(program: Command): void {
  const command = program
    .command('profile')
    .description('measure where the time of a training step goes, by operator and layer')
    .option('--model <name>', 'fovea models lists the names')
    .option('--dataset <name>', 'a name that fovea datasets lists, or folder:PATH', 'fashion-mnist')
    .option('--data <dir>', "a folder with the data set's files; default: cache, Debian's package, network")
  addSkipOption(command).option('--batch-size <n>', 'images of one step', wholeNumber('--batch-size', 1), 32)
  addAugmentOption(addOptimizerOptions(command, 'adam'))
  addConvolutionOption(addTransferOptions(command))
    .option('--steps <n>', 'steps to measure (default: two seconds of them)', wholeNumber('--steps', 1))
    .option('--threads <n>', 'threads of one step (default: all cores)', wholeNumber('--threads', 1))
  addCommonOptions(command).addHelpText('after', NOTES).action(profile)
}

async function profile(flags: Flags): Promise<void> {
  const { model, dataset, batchSize, augment: augmentation, convolution, steps } = flags
  if (model === undefined) {
    const names = architectures.map(({ name }) => name)
    throw new UsageError(`profile: expected --model NAME; models: ${names.join(', ')}`)
  }
  const architecture = architectureNamed(model)
  const optimizer = optimizerOf(flags, adam())
  const document = await withEngine(flags, async (opening): Promise<ProfileDocument> => {
    const dataSet = await loadData(dataset, flags.data, flags.skipUndecodable)
    const transfer = await transferOf(flags, architecture, dataSet)
    const spec = trainingSpec(transfer.model, dataSet, {
      ...transfer.options,
      optimizer,
      batchSize,
      ...(augmentation === undefined ? {} : { augmentation }),
      ...(convolution === undefined ? {} : { convolution }),
    })
    for (const remark of transfer.remarks) process.stderr.write(`${remark}\n`)
    const { values: weights } = transfer
    const engine = await opening
    const measured = await profileTraining(spec, dataSet, {
      engine,
      ...(steps === undefined ? {} : { steps }),
      ...(weights ? { weights } : {}),
    })
    const { augmentation: applied } = spec
    return {
      fovea: foveaVersion,
      model: spec.model.name,
      dataSet: { name: dataSet.name, hash: dataSet.hash, source: dataSet.source },
      batchSize,
      optimizer,
      ...(applied ? { augmentation: applied } : {}),
      ...(spec.frozen ? { frozen: spec.frozen } : {}),
      ...(convolution ? { convolution } : {}),
      threads: engine.threads,
      runtime: engine.version,
      machine: thisMachine(),
      ...measured,
    }
  })
  const lines = flags.json ? [JSON.stringify(document, undefined, 2)] : profileReport(document)
  process.stdout.write(`${lines.join('\n')}\n`)
}
