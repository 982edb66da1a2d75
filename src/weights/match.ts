/** Which tensor of a file belongs to which tensor of a model. */
import { input } from '../graph/ops/source.ts'
import { buildModel, type Model } from '../nn/model.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { type HostTensor, type Shape, sameShape, showShape } from '../util/host-tensor.ts'
import type { FileTensor, NamedTensors } from './named-tensors.ts'
import { pairLayers, pairTensors, type WantedLayer } from './pair-layers.ts'

/** A tensor that is of another shape in the file than in the model. */
export interface Misshapen {
  /** The model's name of it. */
  readonly name: string
  readonly expected: Shape
  readonly received: Shape
}

export interface MatchReport {
  /** How layers were found: by their names, or by their order where the file's names are not the model's. */
  readonly by: 'name' | 'order'
  /** Names of the model's tensors (`block1_conv1/kernel`) that the file has. */
  readonly matched: readonly string[]
  /** Names of the model's tensors that the file does not have. */
  readonly missing: readonly string[]
  /** Names of the file's tensors that the model does not have. */
  readonly unused: readonly string[]
  readonly misshapen: readonly Misshapen[]
}

export interface MatchedWeights {
  /** By the model's names: parameters, and buffers such as batch normalization's averages. */
  readonly values: Readonly<Record<string, HostTensor>>
  readonly report: MatchReport
}

/**
 * Finds a file's tensors for a model's parameters and buffers: by names, and where the file's names are not the model's, by
 * Keras's order of layers.
 *
 * @throws UsageError where nothing fits; FoveaError where a value that fits is not finite
 */
export function matchWeights(model: Model, file: NamedTensors): MatchedWeights {
  const wanted = wantedLayers(model)
  const { pairs, by } = pairLayers(model, wanted, file)
  const values: Record<string, HostTensor> = {}
  const misshapen: Misshapen[] = []
  const missing: string[] = []
  const used = new Set<FileTensor>()
  const all = file.layers.flatMap(({ tensors }) => tensors)
  // Fovea's own files name each tensor as the model does, those of a layer's parts too.
  const own = new Map(file.format === 'safetensors' ? all.map(tensor => [tensor.name, tensor]) : [])
  for (const layer of wanted) {
    const found = pairs.get(layer)
    const tensors = found ? pairTensors(layer, found) : undefined
    for (const place of layer.tensors) {
      const from = own.get(place.name) ?? tensors?.get(place)
      if (!from) missing.push(place.name)
      else {
        used.add(from)
        const { shape: expected, name } = place
        if (sameShape(expected, from.tensor.shape)) values[name] = finite(file, from)
        else misshapen.push({ name, expected, received: from.tensor.shape })
      }
    }
  }
  const matched = Object.keys(values)
  if (matched.length === 0)
    throw new UsageError(
      `${file.path}: weights of another network: none of its ${all.length} tensors fits "${model.name}"; expected ${listed(wanted.flatMap(({ tensors }) => tensors))}, received ${listed(all.map(({ name, tensor }) => ({ name, shape: tensor.shape })))}`,
    )
  const unused = all.filter(tensor => !used.has(tensor)).map(({ name }) => name)
  return { values, report: { by, matched, missing, unused, misshapen } }
}

/** The layers of a model that have tensors, in the model's order. */
function wantedLayers(model: Model): WantedLayer[] {
  const images = input('images', 'float32', [1, ...model.input])
  const { parameters, buffers } = buildModel(model, images, { training: false })
  const all = [...parameters, ...buffers]
  return model.layers.flatMap(({ name, layer }) => {
    const own = all.filter(tensor => tensor.layer === name)
    const tensors = own.map(({ name: full, tensor }) => ({
      name: full,
      // What layers share is not named after them.
      role: full.startsWith(`${name}/`) ? full.slice(name.length + 1) : full,
      shape: tensor.shape,
    }))
    return tensors.length > 0 ? [{ name, kind: layer.layer, tensors }] : []
  })
}

function finite({ path }: NamedTensors, { name, tensor }: FileTensor): HostTensor {
  const { data } = tensor
  for (let i = 0; i < data.length; i++)
    if (!Number.isFinite(data[i]))
      throw new FoveaError(
        `${path}: "${name}" ${showShape(tensor.shape)}: expected finite values, received ${data[i]}`,
      )
  return tensor
}

/** The first tensors, for messages. */
function listed(tensors: readonly { readonly name: string; readonly shape: Shape }[]): string {
  const first = tensors.slice(0, 3).map(({ name, shape }) => `${name} ${showShape(shape)}`)
  return `${first.join(', ')}${tensors.length > 3 ? ', ...' : ''}`
}

/**
 * Throws a {@link UsageError} unless a file has every tensor of the model, other than those that may start anew.
 *
 * @param optional tells by its name (`predictions/kernel`) whether a tensor may be missing or of another shape
 */
export function checkWeights(
  file: NamedTensors,
  { matched, missing, misshapen }: MatchReport,
  optional: (name: string) => boolean = () => false,
): void {
  const wrong = [
    ...misshapen
      .filter(({ name }) => !optional(name))
      .map(
        ({ name, expected, received }) =>
          `${name}: expected ${showShape(expected)}, received ${showShape(received)}`,
      ),
    ...missing.filter(name => !optional(name)).map(name => `${name}: missing`),
  ]
  if (wrong.length === 0) return
  const rest = wrong.length > 3 ? `; and ${wrong.length - 3} more` : ''
  throw new UsageError(
    `${file.path}: weights of another network: ${matched.length} tensors fit, but ${wrong.slice(0, 3).join('; ')}${rest}`,
  )
}
