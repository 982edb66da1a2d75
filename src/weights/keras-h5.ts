/**
 * Keras's HDF5 files of weights. Until Keras 2, and still as `.h5`, a group a layer with the attribute
 * `weight_names`, listed by `layer_names`; since Keras 3, as `.weights.h5` and within `.keras`, a group a
 * layer named by its class, with its tensors by number in `vars`.
 */

import { FoveaError } from '../util/errors.ts'
import { fromFloat16 } from '../util/float16.ts'
import { type HostTensor, sizeOf } from '../util/host-tensor.ts'
import { type Hdf5Content, type Hdf5Dataset, readHdf5 } from './hdf5.ts'
import { automaticName, roleOf } from './keras-names.ts'
import type { FileLayer, FileTensor, WeightsFormat } from './named-tensors.ts'

/** An optimizer's slots are two thirds of a file. */
const leaveOut = ['optimizer', 'optimizer_weights']

/** Layers by the path of their group, without the names of lists: `functional/conv2d_1`. */
export type LayerNames = ReadonlyMap<string, string>

/**
 * Reads a file.
 *
 * @param where names the file in errors
 * @param names what the model in a `.keras` file calls its layers
 */
export async function readKerasH5(
  path: string,
  where: string,
  names: LayerNames = new Map(),
): Promise<{ format: WeightsFormat; layers: FileLayer[] }> {
  const content = await readHdf5({ path, leaveOut }, where)
  const root = content.groups.find(group => textsOf(group.attributes, 'layer_names') !== undefined)
  const layers = root
    ? legacyLayers(content, root.path, textsOf(root.attributes, 'layer_names')!, where)
    : numberedLayers(content, names, where)
  if (layers.length > 0) return { format: root ? 'keras-legacy-h5' : 'keras-weights-h5', layers }
  throw new FoveaError(
    `${where}: expected weights that Keras saved (layer_names, or groups with vars), received an HDF5 file of ${content.datasets.length} other datasets`,
  )
}

/** A list of texts; one that is longer than an attribute can be is stored as `name0`, `name1`, ... */
function textsOf(
  attributes: Readonly<Record<string, readonly string[]>>,
  name: string,
): readonly string[] | undefined {
  if (attributes[name]) return attributes[name]
  const chunks: (readonly string[])[] = []
  for (let chunk = attributes[`${name}0`]; chunk; chunk = attributes[`${name}${chunks.length}`])
    chunks.push(chunk)
  return chunks.length > 0 ? chunks.flat() : undefined
}

function legacyLayers(
  { groups, datasets }: Hdf5Content,
  root: string,
  names: readonly string[],
  where: string,
): FileLayer[] {
  const attributes = new Map(groups.map(group => [group.path, group.attributes]))
  const byPath = new Map(datasets.map(dataset => [dataset.path, dataset]))
  return names.flatMap(layer => {
    const path = root === '' ? layer : `${root}/${layer}`
    const weights = textsOf(attributes.get(path) ?? {}, 'weight_names') ?? []
    const tensors = weights.map(name => {
      const dataset = byPath.get(`${path}/${name}`)
      if (dataset) return { name, role: roleOf(name), tensor: toTensor(dataset, where) }
      throw new FoveaError(`${where}: "${path}" lists "${name}", which is not there: the file is damaged`)
    })
    return ownLayers(layer, tensors)
  })
}

/** A model within a model is one layer of the file; the names of its tensors tell the layers. */
function ownLayers(layer: string, tensors: readonly FileTensor[]): FileLayer[] {
  const owners = new Map<string, FileTensor[]>()
  for (const tensor of tensors) {
    const owner = tensor.name.split('/').at(-2) ?? layer
    owners.set(owner, [...(owners.get(owner) ?? []), tensor])
  }
  const named = owners.size === 1 ? [[layer, tensors] as const] : [...owners]
  return named.map(([name, own]) => ({ name, kind: automaticName(name)?.kind, tensors: own }))
}

function numberedLayers({ groups, datasets }: Hdf5Content, names: LayerNames, where: string): FileLayer[] {
  const found = new Map<string, { dataset: Hdf5Dataset; number: number }[]>()
  for (const dataset of datasets) {
    const [, path, number] = /^(?:(.*)\/)?vars\/(\d+)$/.exec(dataset.path) ?? []
    // Whole numbers are states of random generators.
    if (number === undefined || dataset.kind === 'integer') continue
    const key = path ?? ''
    found.set(key, [...(found.get(key) ?? []), { dataset, number: Number(number) }])
  }
  const attributes = new Map(groups.map(group => [group.path, group.attributes]))
  const layers = [...found].map(([path, own]): FileLayer & { number: number } => {
    const automatic = automaticName(path.split('/').at(-1)!)
    const [name] = attributes.get(`${path}/vars`)?.name ?? []
    return {
      name: name ?? names.get(withoutLists(path)),
      kind: automatic?.kind,
      number: automatic?.number ?? 0,
      tensors: own
        .toSorted((a, b) => a.number - b.number)
        .map(({ dataset }) => ({ name: dataset.path, role: undefined, tensor: toTensor(dataset, where) })),
    }
  })
  // HDF5 lists conv2d_10 before conv2d_2.
  return layers
    .toSorted((a, b) => a.number - b.number)
    .map(({ name, kind, tensors }) => ({ name, kind, tensors }))
}

/** `layers/functional/layers/conv2d` to `functional/conv2d`. */
function withoutLists(path: string): string {
  return path
    .split('/')
    .filter(part => part !== 'layers' && part !== '_layer_checkpoint_dependencies')
    .join('/')
}

function toTensor({ path, shape, kind, size, bytes }: Hdf5Dataset, where: string): HostTensor {
  if (kind !== 'float' || ![2, 4, 8].includes(size))
    throw new FoveaError(
      `${where}: "${path}": expected little-endian floats of 16, 32 or 64 bits, received ${kind ?? 'other'} values of ${8 * size} bits`,
    )
  const count = sizeOf(shape)
  if (size === 4)
    return {
      dtype: 'float32',
      shape,
      data: new Float32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, count),
    }
  const data =
    size === 2
      ? fromFloat16(new Uint16Array(bytes.buffer, bytes.byteOffset, count))
      : Float32Array.from(new Float64Array(bytes.buffer, bytes.byteOffset, count))
  return { dtype: 'float32', shape, data }
}
