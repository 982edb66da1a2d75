/** What defines a trial: plain data that can be hashed, stored, and run again. */
import type { BackboneRate } from '../compile/train-program.ts'
import type { DataSet } from '../data/data-set.ts'
import type { SplitOptions } from '../data/split.ts'
import { type ConvMethod, convMethods } from '../graph/ops/window.ts'
import { type Augmentation, checkAugmentations, withMean } from '../nn/augment/descriptions.ts'
import { crossEntropy, type Loss } from '../nn/losses.ts'
import type { Model } from '../nn/model.ts'
import { adam, type Optimizer } from '../nn/optimizers.ts'
import { checkInteger, checkRange, UsageError, unknownName } from '../util/errors.ts'
import { hashJson } from '../util/hash.ts'
import type { Shape } from '../util/host-tensor.ts'

/**
 * Keeps the parameters of the epoch that is best on the validation split, and stops when it no longer
 * improves.
 */
export interface EarlyStopping {
  readonly monitor: 'loss' | 'accuracy'
  /** Epochs without improvement before stopping. Default: all epochs are run. */
  readonly patience?: number
  /** What counts as improvement. Default: 0. */
  readonly minDelta?: number
}

/** A tensor of the model that starts from the seed, although the trial starts from weights. */
export interface FreshTensor {
  readonly name: string
  readonly shape: Shape
  /** Its shape in the weights, where they have one of its name. */
  readonly received?: Shape
}

/**
 * What a trial starts from, where that is not the seed alone: values that match the model's by name and
 * shape.
 */
export interface LoadedWeights {
  /**
   * The folder of a run, a file, or `imagenet`, as it was asked for. The trial's hash does not depend on it.
   */
  readonly source: string
  /** SHA-256 of the names, shapes and values that were loaded. */
  readonly hash: string
  readonly loaded: { readonly tensors: number; readonly values: number }
  /** Of all tensors of the model, parameters and buffers. */
  readonly all: { readonly tensors: number; readonly values: number }
  readonly fresh: readonly FreshTensor[]
  /** Names of the weights that the model does not have. */
  readonly unused: readonly string[]
}

/** A trial. The defaults are those of {@link trainingSpec}. */
export interface TrainingSpec {
  readonly model: Model
  readonly dataSet: { readonly name: string /** SHA-256 of images and labels. */; readonly hash: string }
  /** Default: all training images, of which 10 % validate. */
  readonly split: Omit<SplitOptions, 'seed'>
  /** Default: cross-entropy. */
  readonly loss: Loss
  /** Default: Adam with Keras's defaults. */
  readonly optimizer: Optimizer
  /** Images of one step. Default: 32. */
  readonly batchSize: number
  /** Default: 10. */
  readonly epochs: number
  /** Of weights, split, order and all other random numbers. Default: 1. */
  readonly seed: number
  /** With it, the parameters of the best epoch are restored at the end. Default: none. */
  readonly earlyStopping?: EarlyStopping
  /** What the model starts from, besides the seed. Default: the seed alone. */
  readonly weights?: LoadedWeights
  /** Names of the layers that are not trained, as Keras's `trainable = False`. Default: none. */
  readonly frozen?: readonly string[]
  /** Layers that learn at a rate of their own. Default: none. */
  readonly backbone?: BackboneRate
  /** What becomes of the training images of each step, in this order. Default: nothing. */
  readonly augmentation?: readonly Augmentation[]
  /** How convolutions are computed where they can be. Default: as is fastest. */
  readonly convolution?: ConvMethod
}

/** The specification of a trial of `model` on a loaded data set, whose mean `cutout` fills with. */
export function trainingSpec(
  model: Model,
  dataSet: DataSet,
  options: Partial<Omit<TrainingSpec, 'model' | 'dataSet'>> = {},
): TrainingSpec {
  const { augmentation = [], ...others } = options
  return {
    model,
    dataSet: { name: dataSet.name, hash: dataSet.hash },
    split: { fraction: 1, validation: 0.1 },
    loss: crossEntropy(),
    optimizer: adam(),
    batchSize: 32,
    epochs: 10,
    seed: 1,
    ...others,
    ...(augmentation.length > 0 ? { augmentation: withMean(augmentation, dataSet.train.images) } : {}),
  }
}

/** Throws a UsageError where a number of the specification is out of range. */
export function checkSpec(spec: TrainingSpec): void {
  checkInteger('train', 'epochs', spec.epochs, 1)
  checkInteger('train', 'batchSize', spec.batchSize, 1)
  checkInteger('train', 'seed', spec.seed, 0)
  if (spec.convolution !== undefined && !convMethods.includes(spec.convolution))
    throw unknownName('form of convolutions', spec.convolution, convMethods)
  checkAugmentations(spec.augmentation ?? [], spec.model.input)
  if (!spec.earlyStopping) return
  checkInteger('earlyStopping', 'patience', spec.earlyStopping.patience ?? 0, 0)
  checkRange('earlyStopping', 'minDelta', spec.earlyStopping.minDelta ?? 0, 0)
  if (spec.split.validation === 0)
    throw new UsageError('earlyStopping: expected a validation split to watch, received validation 0')
}

/**
 * Identifies what is trained: equal specifications have equal hashes. Where its weights were read is no part
 * of it.
 */
export function specHash({ weights, ...spec }: TrainingSpec): string {
  return hashJson(weights ? { ...spec, weights: weights.hash } : spec)
}

/**
 * What an epoch gave. Accuracies are fractions 0..1; losses are means over images, with the model's
 * penalties.
 */
export interface EpochRecord {
  /** From 1. */
  readonly epoch: number
  /** Of the epoch's last step. */
  readonly learningRate: number
  /** Means over the epoch's minibatches, as they were before each update. */
  readonly trainLoss: number
  readonly trainAccuracy: number
  readonly validationLoss?: number
  readonly validationAccuracy?: number
  /** Training alone, without the validation. */
  readonly seconds: number
  readonly imagesPerSecond: number
}

/** What happens while a trial runs. */
export type TrainEvent =
  | {
      readonly type: 'begin'
      /** Trained values. */
      readonly parameters: number
      /** Values of frozen parameters. */
      readonly frozenParameters: number
      readonly trainImages: number
      readonly validationImages: number
      readonly stepsPerEpoch: number
      /** Where a resumed trial goes on. */
      readonly epoch: number
      readonly step: number
    }
  | {
      readonly type: 'progress'
      readonly epoch: number
      readonly epochs: number
      readonly step: number
      readonly stepsPerEpoch: number
      /** Running means of the epoch. */
      readonly loss: number
      readonly accuracy: number
      readonly imagesPerSecond: number
      /** Estimated seconds until all epochs are done. */
      readonly secondsLeft: number
    }
  | { readonly type: 'epoch'; readonly record: EpochRecord; readonly epochs: number }
  | { readonly type: 'checkpoint'; readonly path: string }
  | { readonly type: 'stopped'; readonly epoch: number; readonly bestEpoch: number }
