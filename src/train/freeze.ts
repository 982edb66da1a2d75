/** Which layers of a model are its backbone, and which of them stay as they are. */
import type { BackboneRate } from '../compile/train-program.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel } from '../nn/build.ts'
import type { Model } from '../nn/model.ts'
import { nearest, UsageError } from '../util/errors.ts'
import type { LoadedWeights } from './spec.ts'

/**
 * The names of the layers that came with the weights: all but the head. The head begins with the first layer
 * of which a tensor starts from the seed: what reads its features has yet to learn them. The model's first
 * layer with parameters begins none, though it is no part of the backbone where it is new, as for images of
 * other channels. Where nothing else is new, the head is the last layer with parameters.
 */
export function backboneOf(model: Model, { fresh }: LoadedWeights): string[] {
  const { parameters, buffers } = built(model)
  const unloaded = new Set(fresh.map(({ name }) => name))
  const anew = new Set(
    [...parameters, ...buffers].flatMap(({ name, layer }) => (unloaded.has(name) ? layer : [])),
  )
  const [first, last] = [parameters[0]?.layer, parameters.at(-1)?.layer]
  const names = model.layers.map(({ name }) => name)
  const begin = names.find(name => anew.has(name) && name !== first) ?? last
  return names.slice(0, begin === undefined ? 0 : names.indexOf(begin)).filter(name => !anew.has(name))
}

/**
 * The layers that stay as they are.
 *
 * @param what `none`, `backbone`, or a layer's name: this layer and all that stand before it
 * @param weights what the model starts from, besides the seed
 * @throws UsageError where there is no such layer, no backbone, or nothing would be left to train
 */
export function frozenBy(what: string, model: Model, weights: LoadedWeights | undefined): string[] {
  if (what === 'none') return []
  const frozen = what === 'backbone' ? known('freeze backbone', model, weights) : upTo(what, model)
  if (built(model).parameters.some(({ layer }) => !frozen.includes(layer))) return frozen
  throw new UsageError(
    `freeze ${what}: expected at least one layer with parameters of "${model.name}" to be left to train, received none`,
  )
}

/**
 * A learning rate of its own for what came with the weights.
 *
 * @param frozen names of layers that are not trained
 * @throws UsageError where there are no weights, or nothing of the backbone is trained
 */
export function backboneRate(
  learningRate: number,
  model: Model,
  weights: LoadedWeights | undefined,
  frozen: readonly string[],
): BackboneRate {
  const where = `backbone learning rate ${learningRate}`
  const layers = known(where, model, weights).filter(name => !frozen.includes(name))
  if (built(model).parameters.some(({ layer }) => layers.includes(layer))) return { layers, learningRate }
  throw new UsageError(`${where}: expected a backbone that is trained, received one that is frozen`)
}

function built(model: Model) {
  return buildModel(model, input('images', 'float32', [1, ...model.input]), { training: false })
}

function known(where: string, model: Model, weights: LoadedWeights | undefined): string[] {
  if (weights) return backboneOf(model, weights)
  throw new UsageError(
    `${where}: expected weights to start from, which tell what the backbone is, received none`,
  )
}

function upTo(name: string, model: Model): string[] {
  const names = model.layers.map(layer => layer.name)
  const end = names.indexOf(name)
  if (end >= 0) return names.slice(0, end + 1)
  const known = ['none', 'backbone', ...names]
  const near = nearest(name, known)
  // A deep network has hundreds.
  const some =
    names.length > 6 ? `${names.slice(0, 3).join(', ')}, ... ${names.slice(-2).join(', ')}` : names.join(', ')
  throw new UsageError(
    `unknown layer to freeze "${name}"${near === undefined ? ';' : `; did you mean "${near}"?`} known: none, backbone, and the ${names.length} layers of "${model.name}": ${some}`,
  )
}
