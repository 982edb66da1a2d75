/**
 * `fovea train --weights`: what a new trial starts from, what of it stays, and how images are fitted to it.
 */
import type { Command } from 'commander'
import type { DataSet } from '../data/data-set.ts'
import type { Model } from '../nn/model.ts'
import type { FitOptions } from '../train/fit.ts'
import { backboneRate, frozenBy } from '../train/freeze.ts'
import type { LoadedWeights, TrainingSpec } from '../train/spec.ts'
import { openWeights, startFrom, type WeightsSource } from '../train/transfer.ts'
import { UsageError } from '../util/errors.ts'
import { lackingText, some } from '../weights/index.ts'
import type { Architecture, BuildOptions } from '../zoo/architecture.ts'
import { metric, plural } from './format.ts'
import { withDownloads } from './load-data.ts'
import { number, oneOf } from './options.ts'

export interface TransferFlags {
  readonly weights?: string
  readonly freeze?: string
  readonly backboneLearningRate?: number
  readonly resize?: readonly [number, number]
  readonly preprocessing?: 'imagenet' | 'scale'
  readonly top?: 'own' | 'pooling'
}

export function addTransferOptions(command: Command): Command {
  return command
    .option('--weights <from>', "start from a run's folder, a file of weights, or imagenet")
    .option('--freeze <what>', 'not to train: backbone, none, or a layer and all before it (default: none)')
    .option(
      '--backbone-learning-rate <x>',
      'of what came with the weights (default: as the rest)',
      number('--backbone-learning-rate', 0),
    )
    .option('--resize <size>', 'resize the images, to 224 or to 224x192 (height x width)', sizeOf)
    .option(
      '--preprocessing <name>',
      "imagenet, scale (the network's own range) (default: scale, or as published weights or a run had it)",
      oneOf('preprocessing', ['imagenet', 'scale'] as const),
    )
    .option(
      '--top <name>',
      'own, pooling: what stands after the backbone of vgg16 (default: own, or as a run had it)',
      oneOf('top', ['own', 'pooling'] as const),
    )
}

/** `224`, `224x192`. */
function sizeOf(text: string): [number, number] {
  const [height = 0, width = height] = /^\d+(x\d+)?$/.test(text) ? text.split('x').map(Number) : []
  if (height > 0 && width > 0 && Number.isSafeInteger(height * width)) return [height, width]
  throw new UsageError(`--resize: expected a size as 224 or 224x192 (height x width), received "${text}"`)
}

/** A network that is fitted to images and to weights. */
export interface Transfer {
  readonly model: Model
  readonly options: Pick<TrainingSpec, 'weights' | 'frozen' | 'backbone'>
  /** The values of `options.weights`. */
  readonly values: FitOptions['weights']
  /** What a person should know of it, a remark a line. */
  readonly remarks: readonly string[]
}

/**
 * Builds a network for a data set, and for the weights that it starts from.
 *
 * @throws UsageError where the weights are of another architecture, or flags ask for what there is not
 */
export async function transferOf(
  flags: TransferFlags,
  architecture: Architecture,
  { imageShape, classes }: DataSet,
): Promise<Transfer> {
  const { freeze = 'none', backboneLearningRate: learningRate } = flags
  const source = flags.weights === undefined ? undefined : await opened(flags.weights, architecture)
  const theirSize = source && sizeIn(source)
  const resize = flags.resize ?? theirSize
  const preprocessing = preprocessingOf(flags, architecture, source)
  const top = flags.top ?? (source && topIn(source, architecture))
  const build = (options: BuildOptions = {}) =>
    architecture.build(imageShape, classes.length, {
      preprocessing,
      ...(top ? { top } : {}),
      ...(resize ? { resize } : {}),
      ...options,
    })
  let model = build()
  let start = source && startFrom(source, model)
  const coloured = source !== undefined && start !== undefined && needsColour(start.weights)
  if (coloured) {
    model = build({ colour: true })
    start = startFrom(source, model)
  }
  const frozen = frozenBy(freeze, model, start?.weights)
  const backbone =
    learningRate === undefined ? undefined : backboneRate(learningRate, model, start?.weights, frozen)
  const options = {
    ...(start ? { weights: start.weights } : {}),
    ...(frozen.length > 0 ? { frozen } : {}),
    ...(backbone ? { backbone } : {}),
  }
  const remarks = [
    ...(start ? matchLines(start.weights, frozen) : []),
    ...(resize && resize === theirSize
      ? [`images are resized to ${resize.join(' x ')}, as those that the weights were trained on`]
      : []),
    ...(top === 'pooling' && !flags.top ? ['the head is one layer after pooling, as in the run'] : []),
    ...(coloured ? ['grey images are repeated as red, green and blue: the weights need 3 channels'] : []),
    ...(preprocessing === 'imagenet'
      ? ['pixels are prepared as for the weights published for ImageNet']
      : []),
    ...(source && isInDoubt(flags, architecture, source)
      ? [
          "pixels are in the network's own range, -1..1: for weights that come from those published for ImageNet give --preprocessing imagenet",
        ]
      : []),
  ]
  return { model, options, values: start?.values, remarks }
}

async function opened(source: string, { name }: Architecture): Promise<WeightsSource> {
  return await withDownloads(progress => openWeights(source, name, { progress }))
}

/** ImageNet's where it is known to be the weights' own: of the published files, and of runs that had it. */
function preprocessingOf(
  { preprocessing }: TransferFlags,
  { pretrained }: Architecture,
  source: WeightsSource | undefined,
): NonNullable<BuildOptions['preprocessing']> {
  if (preprocessing) return preprocessing === 'imagenet' ? 'imagenet' : 'own'
  if (!pretrained || !source) return 'own'
  const { model, published } = source
  return published || model?.layers.some(({ layer }) => layer.layer === 'caffePixels') ? 'imagenet' : 'own'
}

/**
 * Whether a file's images may have been prepared in another way than the network's own, and nobody has said
 * how.
 */
function isInDoubt(
  { preprocessing }: TransferFlags,
  { pretrained }: Architecture,
  { model, published }: WeightsSource,
): boolean {
  return preprocessing === undefined && pretrained?.preprocessing === 'caffe' && !model && !published
}

/** What a run of the same architecture has after its backbone. */
function topIn({ model }: WeightsSource, { name, pretrained }: Architecture): BuildOptions['top'] {
  if (!pretrained || model?.name !== name) return undefined
  return pretrained.head.every(layer => model.layers.some(use => use.name === layer)) ? 'own' : 'pooling'
}

/** The size that a run's model resizes its images to. */
function sizeIn(source: WeightsSource): readonly [number, number] | undefined {
  const layer = source.model?.layers.find(use => use.layer.layer === 'resizing')?.layer
  return layer && [Number(layer.height), Number(layer.width)]
}

/** Whether a kernel of the weights reads 3 channels where the model's reads 1. */
function needsColour({ fresh }: LoadedWeights): boolean {
  return fresh.some(
    ({ shape, received }) =>
      shape.length === 4 && shape[2] === 1 && received?.length === 4 && received[2] === 3,
  )
}

/** Names in a line of text. */
const MOST = 6

function matchLines(
  { source, loaded, all, fresh, unused }: LoadedWeights,
  frozen: readonly string[],
): string[] {
  const matched = `matched ${loaded.tensors} of ${plural(all.tensors, 'tensor')} (${metric(loaded.values)} of ${metric(all.values)} values)`
  const stuck = fresh.filter(({ name }) => frozen.some(layer => name.startsWith(`${layer}/`)))
  return [
    `weights of ${source}: ${matched}`,
    ...(fresh.length > 0
      ? [
          `new: ${some(
            fresh.map(({ name, shape, received }) => lackingText(name, shape, received)),
            MOST,
          )}`,
        ]
      : []),
    ...(unused.length > 0 ? [`not used: ${some(unused, MOST)}`] : []),
    ...(stuck.length > 0
      ? [
          `frozen although new: ${some(
            stuck.map(({ name }) => name),
            MOST,
          )}`,
        ]
      : []),
  ]
}
