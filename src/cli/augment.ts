/** `fovea augment`: what a network sees of augmented images, as a picture. */
import type { Command } from 'commander'
import { compileAugmentation } from '../compile/augment-program.ts'
import type { DataSet } from '../data/data-set.ts'
import { type Augmentation, withMean } from '../nn/augment/descriptions.ts'
import { openEngine } from '../runtime/node.ts'
import { writeFileAtomic } from '../train/files.ts'
import { stepKeys } from '../train/steps.ts'
import { UsageError } from '../util/errors.ts'
import { hostTensor } from '../util/host-tensor.ts'
import { addAugmentOption } from './augmentation.ts'
import { contactSheet, sheetLayout } from './contact-sheet.ts'
import { plural } from './format.ts'
import { loadData } from './load-data.ts'
import { addCommonOptions, addSkipOption, wholeNumber } from './options.ts'

interface Flags {
  readonly augment?: readonly Augmentation[]
  readonly dataset: string
  readonly data?: string
  readonly skipUndecodable?: boolean
  readonly images: number
  readonly draws: number
  readonly seed: number
  readonly out: string
  readonly json?: boolean
}

const NOTES = `
Each row is a training image: as it is on the left, then as so many steps of
training with that seed would see it. fovea train --augment trains on it.

Examples:
  fovea augment --dataset cifar-10 --augment crop:4,flip
  fovea augment --augment rotate:15,noise:0.05 --images 4 --out turned.png`

export function addAugmentCommand(program: Command): void {
  const command = program.command('augment').description('draw a picture of augmented training images')
  addAugmentOption(command)
    .option('--dataset <name>', 'a name that fovea datasets lists, or folder:PATH', 'fashion-mnist')
    .option('--data <dir>', "a folder with the data set's files; default: cache, Debian's package, network")
  addSkipOption(command)
    .option('--images <n>', 'rows: images, of one class after the other', wholeNumber('--images', 1), 8)
    .option('--draws <n>', 'columns: draws of each image', wholeNumber('--draws', 1), 8)
    .option('--seed <n>', 'of the draws', wholeNumber('--seed', 0), 1)
    .option('--out <file>', 'the picture, a PNG file', 'augment.png')
  addCommonOptions(command).addHelpText('after', NOTES).action(augment)
}

async function augment(flags: Flags): Promise<void> {
  const { augment: augmentation, dataset, images, draws, seed, out, json } = flags
  if (augmentation === undefined)
    throw new UsageError('augment: expected --augment LIST, as --augment crop:4,flip')
  if (!out.endsWith('.png'))
    throw new UsageError(`--out: expected a name that ends in .png, received "${out}"`)
  const dataSet = await loadData(dataset, flags.data, flags.skipUndecodable)
  const [height, width] = dataSet.imageShape
  // Before anything is computed: the engine would run out of memory first.
  sheetLayout(height, width, images, draws)
  const filled = withMean(augmentation, dataSet.train.images)
  const rows = ofEachClass(dataSet, images)
  const changed = await augmented(dataSet, filled, rows, draws, seed)
  const png = await contactSheet(dataSet.train.images, rows, changed, draws)
  await writeFileAtomic(out, png)
  const shown = rows.map(row => ({ row, class: dataSet.classes[Number(dataSet.train.labels.data[row])]! }))
  const document = { out, dataSet: dataSet.name, augmentation: filled, seed, draws, images: shown }
  const names = shown.map(image => image.class).join(', ')
  process.stdout.write(
    json
      ? `${JSON.stringify(document, undefined, 2)}\n`
      : `${plural(images, 'image')} of ${dataSet.title} (${names}), ${plural(draws, 'draw')} each: ${out}\n`,
  )
}

/** The rows of the first training images of each class in turn, then of the second ones, and so on. */
function ofEachClass({ train, classes }: DataSet, count: number): number[] {
  if (count > train.count)
    throw new UsageError(`--images: expected at most ${train.count}, the training images, received ${count}`)
  const members = classes.map((): number[] => [])
  for (const [row, label] of (train.labels.data as Int32Array).entries()) members[label]!.push(row)
  const ranked = members.flatMap(rows => rows.map((row, rank) => ({ row, rank })))
  return ranked
    .sort((a, b) => a.rank - b.rank)
    .slice(0, count)
    .map(({ row }) => row)
}

/** The rows' images at each of the first steps of training: float32 [draws, rows, H, W, C]. */
async function augmented(
  { train, imageShape }: DataSet,
  augmentation: readonly Augmentation[],
  rows: readonly number[],
  draws: number,
  seed: number,
): Promise<Float32Array> {
  const compiled = compileAugmentation(imageShape, augmentation, rows.length)
  const engine = await openEngine({ threads: 1 })
  try {
    const program = await engine.load(compiled.bytes)
    const order = Array.from({ length: draws }, () => rows).flat()
    const { augmented } = await program.run({
      feeds: {
        steps: hostTensor('int64', [], [draws]),
        images: train.images,
        labels: train.labels,
        order: hostTensor('int32', [draws, rows.length], order),
        ...stepKeys(compiled.randomKeys, seed, 0, draws),
      },
    })
    return augmented!.data as Float32Array
  } finally {
    await engine.close()
  }
}
