/** Transfer: a trial that starts from the weights of another, or from a file's. */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { TrainProgram } from '../compile/train-program.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel, type Model } from '../nn/model.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { canonicalJson } from '../util/hash.ts'
import { bytesOf, type HostTensor, type Shape, sameShape, sizeOf } from '../util/host-tensor.ts'
import {
  fetchImageNetWeights,
  type ImageNetOptions,
  matchWeights,
  type NamedTensors,
  readWeights,
} from '../weights/index.ts'
import { checkpointIn, loadCheckpoint, trainedValues } from './checkpoint.ts'
import type { LoadedWeights, TrainingSpec } from './spec.ts'

type Values = Readonly<Record<string, HostTensor>>

/** Weights that were read: of a run, with the model that they are of, or of a file. */
export type WeightsSource = {
  /** The folder of a run, a file, or `imagenet`, as it was asked for. */
  readonly source: string
} & ({ readonly model: Model; readonly values: Values } | { readonly file: NamedTensors })

/**
 * Reads the weights of a run's folder (its best epoch's where early stopping kept them, else its last), of a file, or those
 * that are published for an architecture.
 *
 * @param source the folder, the file, or `imagenet`
 * @param architecture the name in the zoo that `imagenet` is asked for
 * @throws FoveaError where there are none, they are damaged, or cannot be fetched
 */
export async function openWeights(
  source: string,
  architecture: string,
  options: Pick<ImageNetOptions, 'progress'> = {},
): Promise<WeightsSource> {
  if (source === 'imagenet')
    return { source, file: await readWeights(await fetchImageNetWeights(architecture, options)) }
  const run = basename(source) === basename(checkpointIn('')) ? dirname(source) : source
  const isFolder = await stat(run).then(
    found => found.isDirectory(),
    () => false,
  )
  if (!isFolder) return { source, file: await readWeights(source) }
  const checkpoint = await loadCheckpoint(checkpointIn(run))
  return { source, model: checkpoint.spec.model, values: trainedValues(checkpoint) }
}

/** The values that a model takes from weights, and what a specification says of them. */
export interface Start {
  readonly weights: LoadedWeights
  readonly values: Values
}

/**
 * Finds the tensors of a model, parameters and buffers, that weights have under the same name and of the same shape.
 *
 * @throws UsageError where they are fewer than half of the model's: weights of another architecture
 */
export function startFrom(from: WeightsSource, model: Model): Start {
  const { source } = from
  const shapes = shapesOf(model)
  const { values, received, unused } =
    'file' in from ? foundInFile(model, from.file) : foundInRun(shapes, from.values)
  const names = Object.keys(values)
  if (names.length * 2 < shapes.size)
    throw new UsageError(
      `${source}: weights of another architecture: ${names.length} of the ${shapes.size} tensors of "${model.name}" are there by name and shape, expected at least half`,
    )
  const fresh = [...shapes]
    .filter(([name]) => !(name in values))
    .map(([name, shape]) => {
      const other = received.get(name)
      return { name, shape, ...(other ? { received: other } : {}) }
    })
  const total = (sizes: readonly Shape[]) => sizes.reduce((sum, shape) => sum + sizeOf(shape), 0)
  const weights = {
    source,
    hash: hashValues(values),
    loaded: { tensors: names.length, values: total(Object.values(values).map(({ shape }) => shape)) },
    all: { tensors: shapes.size, values: total([...shapes.values()]) },
    fresh,
    unused,
  }
  return { weights, values }
}

/** What weights have of a model. */
interface Found {
  readonly values: Values
  /** Shapes of tensors that are of another shape in the model, by name. */
  readonly received: ReadonlyMap<string, Shape>
  readonly unused: readonly string[]
}

function foundInFile(model: Model, file: NamedTensors): Found {
  const { values, report } = matchWeights(model, file)
  const received = new Map(report.misshapen.map(({ name, received: shape }) => [name, shape]))
  return { values, received, unused: report.unused }
}

/** A run has Fovea's own names. */
function foundInRun(shapes: ReadonlyMap<string, Shape>, values: Values): Found {
  const known = Object.entries(values).filter(([name]) => shapes.has(name))
  const fits = ([name, { shape }]: (typeof known)[number]) => sameShape(shape, shapes.get(name)!)
  return {
    values: Object.fromEntries(known.filter(fits)),
    received: new Map(known.filter(entry => !fits(entry)).map(([name, { shape }]) => [name, shape])),
    unused: Object.keys(values).filter(name => !shapes.has(name)),
  }
}

/**
 * Reads the values of a specification's weights from their source.
 *
 * @throws FoveaError where the source has changed or is gone
 */
export async function weightsOf({ weights, model }: TrainingSpec): Promise<Values | undefined> {
  if (!weights) return undefined
  return startFrom(await openWeights(weights.source, model.name), model).values
}

/** Throws unless these are the values that a specification names. */
export function checkStart({ weights }: TrainingSpec, values: Values | undefined): void {
  if (!weights && !values) return
  if (!weights || !values)
    throw new FoveaError(
      `train: expected ${weights ? `the weights of ${weights.source}` : 'no weights, as in the specification'}, received ${values ? 'some' : 'none'}`,
    )
  const hash = hashValues(values)
  if (hash !== weights.hash)
    throw new FoveaError(
      `${weights.source}: the weights have changed since the trial was specified: expected the SHA-256 ${weights.hash}, received ${hash}`,
    )
}

/** Numbers of values of a program's parameters. */
export function parameterCounts({ state }: TrainProgram): { parameters: number; frozenParameters: number } {
  const count = (kind: string) =>
    state.filter(tensor => tensor.kind === kind).reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  return { parameters: count('parameter'), frozenParameters: count('frozen') }
}

/** Shapes of a model's parameters and buffers, by name. */
function shapesOf(model: Model): ReadonlyMap<string, Shape> {
  const images = input('images', 'float32', [1, ...model.input])
  const { parameters, buffers } = buildModel(model, images, { training: false })
  return new Map([...parameters, ...buffers].map(({ name, tensor }) => [name, tensor.shape]))
}

/** By Node's crypto: a large network's weights are gigabytes. */
function hashValues(values: Values): string {
  const hash = createHash('sha256')
  for (const [name, tensor] of Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${canonicalJson({ name, dtype: tensor.dtype, shape: tensor.shape })}\n`)
    hash.update(bytesOf(tensor))
  }
  return hash.digest('hex')
}
