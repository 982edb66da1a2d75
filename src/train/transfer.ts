/** Transfer: a trial that starts from the weights of another, or from a file's. */
import { stat } from 'node:fs/promises'
import type { TrainProgram } from '../compile/train-program.ts'
import { hashTensors } from '../data/content-hash.ts'
import type { Model } from '../nn/model.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { type HostTensor, type Shape, sizeOf } from '../util/host-tensor.ts'
import {
  checkWeights,
  fetchImageNetWeights,
  foveaLayers,
  type ImageNetOptions,
  isPublished,
  matchWeights,
  type NamedTensors,
  readWeights,
  wantedLayers,
} from '../weights/index.ts'
import { checkpointIn, isCheckpoint, loadCheckpoint, trainedValues } from './checkpoint.ts'
import type { LoadedWeights, TrainingSpec } from './spec.ts'

type Values = Readonly<Record<string, HostTensor>>

/** Weights that were read. */
export interface WeightsSource {
  /** The folder of a run, a file, or `imagenet`, as it was asked for. */
  readonly source: string
  readonly file: NamedTensors
  /** The model that a run's weights are of; a file tells none. */
  readonly model?: Model
  /** The file is the one that a publisher trained on ImageNet. */
  readonly published: boolean
}

/**
 * Reads the weights of a run, by its folder or its checkpoint (its best epoch's where early stopping kept
 * them, else its last), of a file, or those that are published for an architecture.
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
  if (source === 'imagenet') {
    const file = await readWeights(await fetchImageNetWeights(architecture, options))
    return { source, file, published: true }
  }
  if (source === '')
    throw new UsageError("weights: expected a run's folder, a file or imagenet, received none")
  const isFolder = await stat(source).then(
    found => found.isDirectory(),
    () => false,
  )
  const path = isFolder ? checkpointIn(source) : source
  if (!isFolder && !(await isCheckpoint(path))) {
    const file = await readWeights(source)
    return { source, file, published: await isPublished(architecture, source) }
  }
  const checkpoint = await loadCheckpoint(path)
  const { model } = checkpoint.spec
  const values = trainedValues(checkpoint)
  const inOrder = tensorsOf(model).flatMap(({ name }): [string, HostTensor][] =>
    values[name] ? [[name, values[name]]] : [],
  )
  const file = { path: source, format: 'run', layers: foveaLayers(inOrder) } as const
  return { source, file, model, published: false }
}

/** The values that a model takes from weights, and what a specification says of them. */
export interface Start {
  readonly weights: LoadedWeights
  readonly values: Values
}

/**
 * Finds the tensors of a model, parameters and buffers, in weights.
 *
 * @throws UsageError for weights of another architecture
 */
export function startFrom({ source, file }: WeightsSource, model: Model): Start {
  const { values, report } = matchWeights(model, file)
  checkWeights(model, file, report)
  const all = tensorsOf(model)
  const received = new Map(report.misshapen.map(({ name, received: shape }) => [name, shape]))
  const fresh = all
    .filter(({ name }) => !(name in values))
    .map(({ name, shape }) => {
      const other = received.get(name)
      return { name, shape, ...(other ? { received: other } : {}) }
    })
  const count = (tensors: readonly { readonly shape: Shape }[]) => ({
    tensors: tensors.length,
    values: tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
  })
  const weights = {
    source,
    hash: hashValues(values),
    loaded: count(Object.values(values)),
    all: count(all),
    fresh,
    unused: report.unused,
  }
  return { weights, values }
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

/** A model's parameters and buffers, layer by layer. */
const tensorsOf = (model: Model) => wantedLayers(model).flatMap(({ tensors }) => tensors)

function hashValues(values: Values): string {
  const sorted = Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1))
  return hashTensors(sorted.map(([name, tensor]) => ({ name, tensor })))
}
