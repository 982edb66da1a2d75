/** `fovea predict`: the classes of image files. */
import type { Command } from 'commander'
import { compilePrediction } from '../compile/predict-program.ts'
import { openEngine } from '../runtime/node.ts'
import { type Checkpoint, trainedValues } from '../train/checkpoint.ts'
import { percent } from './format.ts'
import { type Inversion, inversions, type ModelImage, readImage } from './image-file.ts'
import { addCommonOptions, addEngineOptions, type EngineFlags, oneOf, wholeNumber } from './options.ts'
import { openRun } from './run-folder.ts'
import { table } from './table.ts'
import { colorsOf, widthOf } from './terminal.ts'

interface Flags extends EngineFlags {
  readonly top: number
  readonly invert: Inversion
  readonly json?: boolean
}

interface Prediction {
  readonly image: string
  readonly inverted: boolean
  /** The likeliest first. */
  readonly classes: readonly { readonly name: string; readonly probability: number }[]
}

const NOTES = `
Any picture that can be read (PNG, JPEG, WebP, GIF, TIFF, AVIF, SVG) is fitted
into the model's input with its proportions kept, and made grey where the model
is. The images of MNIST and Fashion-MNIST are light on black: with --invert auto
a grey picture is inverted where its border is light (its mean above half).

Examples:
  fovea predict runs/my-run shoe.jpg
  fovea predict runs/my-run photos/*.png --top 1 --json`

export function addPredictCommand(program: Command): void {
  const command = program
    .command('predict')
    .description('classify image files with a trained model')
    .argument('<run>', "a run's folder")
    .argument('<image...>', 'image files')
    .option('--top <k>', 'classes to show for each image', wholeNumber('--top', 1), 3)
    .option('--invert <when>', inversions.join(', '), oneOf('value of --invert', inversions), 'auto')
  addEngineOptions(command, "threads (default: the run's own)")
  addCommonOptions(command).addHelpText('after', NOTES).action(predict)
}

async function predict(run: string, paths: readonly string[], flags: Flags): Promise<void> {
  const checkpoint = await openRun(run)
  const images: ModelImage[] = []
  for (const path of paths) images.push(await readImage(path, checkpoint.spec.model.input, flags.invert))
  const predictions = (await probabilities(checkpoint, images, flags)).map((values, i) => ({
    image: paths[i]!,
    inverted: images[i]!.inverted,
    classes: likeliest(checkpoint.classes, values, flags.top),
  }))
  const text = flags.json ? JSON.stringify(predictions, undefined, 2) : show(predictions)
  process.stdout.write(`${text}\n`)
}

async function probabilities(
  checkpoint: Checkpoint,
  images: readonly ModelImage[],
  flags: EngineFlags,
): Promise<Float32Array[]> {
  const { bytes } = compilePrediction(checkpoint.spec.model, trainedValues(checkpoint))
  const { threads = checkpoint.engine.threads, device = checkpoint.engine.device } = flags
  const engine = await openEngine({ threads, device })
  try {
    const program = await engine.load(bytes)
    const results: Float32Array[] = []
    for (const { tensor } of images) {
      const result = await program.run({ feeds: { images: tensor } })
      results.push(result.probabilities!.data as Float32Array)
    }
    return results
  } finally {
    await engine.close()
  }
}

function likeliest(classes: readonly string[], values: Float32Array, top: number): Prediction['classes'] {
  return classes
    .map((name, i) => ({ name, probability: values[i]! }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, top)
}

/** One line an image: its name, then class and probability, the likeliest first. */
function show(predictions: readonly Prediction[]): string {
  const { bold, dim } = colorsOf(process.stdout)
  const [, ...further] = predictions[0]!.classes.map((_, i) =>
    Math.max(...predictions.map(({ classes }) => classes[i]!.name.length)),
  )
  const columns = [
    { title: 'class', style: bold },
    { title: 'probability', align: 'right' as const },
    ...further.map(() => ({ title: '', optional: true })),
  ]
  const rows = predictions.map(({ image, inverted, classes: [first, ...others] }) => [
    inverted ? `${image} (inverted)` : image,
    first!.name,
    percent(first!.probability),
    // One cell, so that a class and its probability fall away together where the terminal is narrow.
    ...others.map(
      ({ name, probability }, i) => `${name.padEnd(further[i]!)}  ${percent(probability).padStart(7)}`,
    ),
  ])
  const options = { width: widthOf(process.stdout), styleTitle: dim }
  return table([{ title: 'image' }, ...columns], rows, options).join('\n')
}
