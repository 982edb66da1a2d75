/** Which layer of a file is which layer of a model. */
import type { Model } from '../nn/model.ts'
import type { Shape } from '../util/host-tensor.ts'
import { automaticName } from './keras-names.ts'
import { kerasOrder } from './keras-order.ts'
import { type FileLayer, hasOwnNames, type NamedTensors } from './named-tensors.ts'

/** A tensor that a model's layer needs. */
export interface WantedTensor {
  /** `block1_conv1/kernel`. */
  readonly name: string
  /** `kernel`. */
  readonly role: string
  readonly shape: Shape
  /** Not a buffer. */
  readonly parameter: boolean
}

/** A layer of a model that has parameters or buffers. */
export interface WantedLayer {
  readonly name: string
  readonly kind: string
  /** In Keras's order: what is trained first. */
  readonly tensors: readonly WantedTensor[]
}

export interface Pairing {
  readonly pairs: ReadonlyMap<WantedLayer, FileLayer>
  /** `'order'`: the file's names say nothing, and its layers were taken in their order. */
  readonly by: 'name' | 'order'
}

/**
 * Pairs layers by their names. Names that Keras gave by itself (`conv2d_4`) differ from one model to the next
 * of the same code: such layers are paired kind by kind, in the order of their numbers. Where no name of the
 * file is one of the model's, all layers are paired in Keras's order, as Keras itself does.
 */
export function pairLayers(model: Model, wanted: readonly WantedLayer[], file: NamedTensors): Pairing {
  const pairs = new Map<WantedLayer, FileLayer>()
  const byKeras = file.format.startsWith('keras')
  const isAutomatic = (name: string) => byKeras && automaticName(name) !== undefined
  for (const layer of wanted) {
    if (isAutomatic(layer.name)) continue
    const found = file.layers.find(({ name }) => name === layer.name)
    if (found) pairs.set(layer, found)
  }
  const taken = new Set(pairs.values())
  const left = (layers: readonly FileLayer[]) => layers.filter(layer => !taken.has(layer))
  pairByKind(
    pairs,
    wanted.filter(({ name }) => isAutomatic(name)).toSorted(byNumber),
    left(file.layers)
      .filter(({ name }) => name !== undefined && isAutomatic(name))
      .toSorted(byNumber),
  )
  if (pairs.size > 0 || hasOwnNames(file)) return { pairs, by: 'name' }

  if (byKeras) {
    const order = kerasOrder(model).map(({ name }) => name)
    const inOrder = wanted.toSorted((a, b) => order.indexOf(a.name) - order.indexOf(b.name))
    if (file.format === 'keras-legacy-h5') pairInSequence(pairs, inOrder, file.layers)
    else pairByKind(pairs, inOrder, file.layers)
  } else if (isChain(model)) pairByKind(pairs, wanted, file.layers)
  return { pairs, by: 'order' }
}

function byNumber(
  a: { readonly name: string | undefined },
  b: { readonly name: string | undefined },
): number {
  const number = (name: string | undefined) => automaticName(name ?? '')?.number ?? 0
  return number(a.name) - number(b.name)
}

function pairByKind(
  pairs: Map<WantedLayer, FileLayer>,
  wanted: readonly WantedLayer[],
  layers: readonly FileLayer[],
): void {
  for (const kind of new Set(wanted.map(layer => layer.kind)))
    pairInSequence(
      pairs,
      wanted.filter(layer => layer.kind === kind),
      layers.filter(layer => layer.kind === kind),
    )
}

function pairInSequence(
  pairs: Map<WantedLayer, FileLayer>,
  wanted: readonly WantedLayer[],
  layers: readonly FileLayer[],
): void {
  for (const [i, layer] of wanted.entries()) if (layers[i]) pairs.set(layer, layers[i])
}

/**
 * Whether each layer reads one other, and is read by one at most: only then do two programs list them alike.
 */
export function isChain({ layers }: Model): boolean {
  return layers.every(
    ({ inputs }, i) => inputs.length === 1 && inputs[0] === (layers[i - 1]?.name ?? 'input'),
  )
}

/** Which tensor of a file's layer is which of a model's layer. */
export function pairTensors(
  layer: WantedLayer,
  found: FileLayer,
): Map<WantedTensor, FileLayer['tensors'][number]> {
  const pairs = new Map<WantedTensor, FileLayer['tensors'][number]>()
  const { tensors } = found
  if (tensors.every(({ role }) => role !== undefined)) {
    const roles = new Set(layer.tensors.map(({ role }) => role))
    // Keras 2 calls a depthwise convolution's only kernel so.
    const own = (role: string) => (role === 'depthwiseKernel' && !roles.has(role) ? 'kernel' : role)
    for (const wanted of layer.tensors) {
      const tensor = tensors.find(({ role }) => own(role!) === wanted.role)
      if (tensor) pairs.set(wanted, tensor)
    }
    return pairs
  }
  // Without names, a normalization with an offset alone looks like one with a scale alone.
  if (tensors.length !== layer.tensors.length && layer.kind.endsWith('Normalization')) return pairs
  for (const [i, wanted] of layer.tensors.entries()) if (tensors[i]) pairs.set(wanted, tensors[i])
  return pairs
}
