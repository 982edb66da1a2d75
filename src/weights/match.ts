/** Which tensor of a file belongs to which tensor of a model. */
import { input } from '../graph/ops/source.ts'
import { buildModel } from '../nn/build.ts'
import type { Model } from '../nn/model.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { type HostTensor, type Shape, sameShape, showShape } from '../util/host-tensor.ts'
import { type FileLayer, type FileTensor, hasOwnNames, type NamedTensors } from './named-tensors.ts'
import { isChain, pairLayers, pairTensors, type WantedLayer } from './pair-layers.ts'

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
  /**
   * Names of layers that only one of the two networks has although layers behind them match: the networks
   * differ in more than their heads. Of safetensors only the model's: the file does not tell its order.
   */
  readonly inserted: readonly string[]
}

export interface MatchedWeights {
  /** By the model's names: parameters, and buffers such as batch normalization's averages. */
  readonly values: Readonly<Record<string, HostTensor>>
  readonly report: MatchReport
}

/**
 * Finds a file's tensors for a model's parameters and buffers: by names, and where the file's names are not
 * the model's, by Keras's order of layers. Whether the weights are this network's at all, {@link
 * checkWeights} tells.
 *
 * @throws FoveaError where a value that fits is not finite
 */
export function matchWeights(model: Model, file: NamedTensors): MatchedWeights {
  const wanted = wantedLayers(model)
  const { pairs, by } = pairLayers(model, wanted, file)
  const values: Record<string, HostTensor> = {}
  const misshapen: Misshapen[] = []
  const missing: string[] = []
  /** Those that have a place in the model, and whether they fit into it. */
  const used = new Map<FileTensor, boolean>()
  const all = file.layers.flatMap(({ tensors }) => tensors)
  // Fovea's own files name each tensor as the model does, those of a layer's parts too.
  const own = new Map(hasOwnNames(file) ? all.map(tensor => [tensor.name, tensor]) : [])
  for (const layer of wanted) {
    const found = pairs.get(layer)
    const tensors = found ? pairTensors(layer, found) : undefined
    for (const place of layer.tensors) {
      const from = own.get(place.name) ?? tensors?.get(place)
      if (!from) missing.push(place.name)
      else {
        const { shape: expected, name } = place
        const fits = sameShape(expected, from.tensor.shape)
        used.set(from, fits)
        if (fits) values[name] = finite(file, from)
        else misshapen.push({ name, expected, received: from.tensor.shape })
      }
    }
  }
  const unused = all.filter(tensor => !used.has(tensor)).map(({ name }) => name)
  const inserted = [...insertedInModel(wanted, missing, misshapen), ...insertedInFile(file, used)]
  return { values, report: { by, matched: Object.keys(values), missing, unused, misshapen, inserted } }
}

/**
 * Layers with parameters that the file lacks altogether, before the last that it has. A layer with a kernel
 * of another shape is not had: its bias may fit by chance, as that of a head.
 */
function insertedInModel(
  wanted: readonly WantedLayer[],
  missing: readonly string[],
  misshapen: readonly Misshapen[],
): string[] {
  const absent = new Set(missing)
  const unfit = new Set(misshapen.map(({ name }) => name))
  const isAbsent = ({ tensors }: WantedLayer) => tensors.every(({ name }) => absent.has(name))
  const end = wanted.findLastIndex(
    layer => !isAbsent(layer) && !layer.tensors.some(({ name }) => unfit.has(name)),
  )
  return wanted
    .slice(0, Math.max(0, end))
    .filter(layer => isAbsent(layer) && layer.tensors.some(({ parameter }) => parameter))
    .map(({ name }) => name)
}

/**
 * Layers with weights that the model lacks, before the last of their kind that it has: kinds may be listed
 * apart.
 */
function insertedInFile({ format, layers }: NamedTensors, used: ReadonlyMap<FileTensor, boolean>): string[] {
  if (format === 'safetensors') return []
  const isUsed = ({ tensors }: FileLayer) => tensors.some(tensor => used.has(tensor))
  const fits = (layer: FileLayer) =>
    isUsed(layer) && layer.tensors.every(tensor => used.get(tensor) !== false)
  return [...new Set(layers.map(({ kind }) => kind))].flatMap(kind => {
    const own = layers.filter(layer => layer.kind === kind)
    return own
      .slice(0, Math.max(0, own.findLastIndex(fits)))
      .filter(layer => !isUsed(layer) && layer.tensors.some(isMatrix))
      .map(({ name, tensors }) => name ?? tensors[0]!.name)
  })
}

/** Kernels make a network another one; vectors that files add, such as statistics of images, do not. */
const isMatrix = ({ tensor }: FileTensor): boolean => tensor.shape.length >= 2

/** The layers of a model that have tensors, in the model's order. */
export function wantedLayers(model: Model): WantedLayer[] {
  const images = input('images', 'float32', [1, ...model.input])
  const { parameters, buffers } = buildModel(model, images, { training: false })
  const all = [...parameters, ...buffers]
  const trained = new Set(parameters.map(({ name }) => name))
  return model.layers.flatMap(({ name, layer }) => {
    const own = all.filter(tensor => tensor.layer === name)
    const tensors = own.map(({ name: full, tensor }) => ({
      name: full,
      // What layers share is not named after them.
      role: full.startsWith(`${name}/`) ? full.slice(name.length + 1) : full,
      shape: tensor.shape,
      parameter: trained.has(full),
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

/** The first `most` of a list, for messages. */
export function some(texts: readonly string[], most = 3): string {
  const more = texts.length - most
  return texts.slice(0, most).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

/** A model's tensor that the weights do not have, or have in another shape. */
export function lackingText(name: string, shape: Shape, received: Shape | undefined): string {
  return `${name} ${showShape(shape)}${received ? ` (they have ${showShape(received)})` : ''}`
}

/**
 * Throws a {@link UsageError} where weights are of another architecture: fewer than half of the model's
 * tensors match, or the networks differ in layers or in their widths before the last layer that does.
 */
export function checkWeights(model: Model, file: NamedTensors, report: MatchReport): void {
  const { matched, missing, misshapen, inserted } = report
  const all = matched.length + missing.length + misshapen.length
  const fail = (what: string) =>
    new UsageError(
      `${file.path}: weights of another architecture: ${matched.length} of the ${all} tensors of "${model.name}" are there by name and shape, ${what}`,
    )
  if (matched.length * 2 < all) {
    const fits = new Set(matched)
    const others = new Map(misshapen.map(({ name, received }) => [name, received]))
    const expected = wantedLayers(model)
      .flatMap(({ tensors }) => tensors.filter(({ name }) => !fits.has(name)))
      .map(({ name, shape }) => lackingText(name, shape, others.get(name)))
    const received = file.layers.flatMap(({ tensors }) =>
      tensors.map(({ name, tensor }) => `${name} ${showShape(tensor.shape)}`),
    )
    throw fail(
      `expected at least half; not there: ${some(expected)}; the weights begin with ${some(received)}${namesHint(model, file)}`,
    )
  }
  if (inserted.length > 0)
    throw fail(`but layers before the last of them are in one of the two networks only: ${some(inserted)}`)
  const resized = resizedKernels(model, report)
  if (resized.length > 0)
    throw fail(`but layers before the last of them have other numbers of outputs: ${some(resized)}`)
}

/**
 * Kernels with another number of outputs, before the last layer that fits. Another number of inputs is none of
 * these: images of other channels or another size change it.
 */
function resizedKernels(model: Model, { missing, misshapen }: MatchReport): string[] {
  const layers = wantedLayers(model)
  const unfit = new Set([...missing, ...misshapen.map(({ name }) => name)])
  const end = layers.findLastIndex(({ tensors }) => !tensors.some(({ name }) => unfit.has(name)))
  const before = new Set(layers.slice(0, Math.max(0, end)).flatMap(({ tensors }) => tensors.map(t => t.name)))
  return misshapen
    .filter(({ name, expected }) => before.has(name) && expected.length >= 2)
    .filter(({ expected, received }) => expected.at(-1) !== received.at(-1))
    .map(({ name, expected, received }) => lackingText(name, expected, received))
}

/** What to do with tensors that PyTorch named: it calls no tensor `kernel`. */
function namesHint(model: Model, { format, layers }: NamedTensors): string {
  if (format === 'onnx' && !isChain(model))
    return '. Of networks with branches, ONNX is matched only by the names of Fovea (LAYER/kernel)'
  const names = layers.flatMap(({ tensors }) => tensors.map(({ name }) => name))
  if (format !== 'safetensors' || !names.some(name => name.endsWith('.weight'))) return ''
  return ". These are PyTorch's names: safetensors are read with Fovea's own (LAYER/kernel); a network without branches can be read from ONNX, as torch.onnx.export writes it"
}
