/** Augmentations alone, as a program: shows the images that a training program would train on. */
import { augmentationStreams, augmentByKey } from '../nn/augment/augment.ts'
import type { Augmentation } from '../nn/augment/descriptions.ts'
import { encodeModel } from '../onnx/encode.ts'
import { hashBytes } from '../util/hash.ts'
import { modelOf } from './emit.ts'
import { dataInputs, gatherMinibatch, keyInputs, keyOfStep, loopGraph, type ProgramBytes } from './program.ts'

export interface AugmentProgram extends ProgramBytes {
  /** Names of the random streams: a uint32 for each step and stream. */
  readonly randomKeys: readonly string[]
}

/**
 * Compiles a program that only augments.
 *
 * Inputs: `steps`, `images`, `labels`, `order` and `keys/STREAM` of a training program. Output: `augmented`
 * float32 [steps, N, H, W, C], the images of each step's minibatch.
 *
 * @throws UsageError where an augmentation is out of range, or does not fit the images
 */
export function compileAugmentation(
  imageShape: readonly [number, number, number],
  augmentation: readonly Augmentation[],
  batchSize: number,
): AugmentProgram {
  const source = { input: imageShape }
  const batch = gatherMinibatch(source, batchSize, images => augmentByKey(images, augmentation, keyOfStep))
  const randomKeys = augmentationStreams(augmentation)
  const graph = loopGraph({
    name: 'augment',
    shared: [...dataInputs(source, batchSize), ...keyInputs(randomKeys)],
    carried: [],
    perStep: [{ name: 'augmented', tensor: batch.images }],
  })
  const bytes = encodeModel(modelOf(graph))
  return { bytes, hash: hashBytes(bytes), randomKeys }
}
