/** Models as data: layers, and what each is connected to. */
import { UsageError } from '../util/errors.ts'
import type { Layer } from './layer.ts'

/** One layer of a model, and the layers (or `'input'`) that it reads. */
export interface LayerUse {
  readonly name: string
  readonly layer: Layer
  readonly inputs: readonly string[]
}

/** A model as data. It can be hashed, stored, and sent to another machine. */
export interface Model {
  readonly name: string
  /** [height, width, channels] of the images. */
  readonly input: readonly [number, number, number]
  /** In an order in which each layer stands after those that it reads. */
  readonly layers: readonly LayerUse[]
  /** The layer whose output are the logits [N, classes]. */
  readonly output: string
}

export interface ModelOptions {
  /** Default: `'model'`. */
  readonly name?: string
  /** [height, width, channels] of the images. */
  readonly input: readonly [number, number, number]
}

/** A place in a model under construction: the images, or the output of a layer. */
export interface Connection {
  /** The layers up to here, in order. */
  readonly uses: readonly LayerUse[]
  /** The name of the layer whose output this is, or `'input'`. */
  readonly at: string
  /** How many layers of each kind the model has so far, over all branches: names stay unique. */
  readonly counts: Map<string, number>
}

/** A chain of layers, each reading the one before. */
export function sequential(layers: readonly Layer[], options: ModelOptions): Model {
  if (layers.length === 0) throw new UsageError('sequential: expected at least one layer, received none')
  return functional(options, images => layers.reduce((x, layer) => connect(layer, x), images))
}

/**
 * A model whose graph branches. `build` receives the images and returns the logits:
 *
 *     functional({ input: [28, 28, 1] }, images => {
 *       const a = connect(conv2d({ filters: 8, kernelSize: 3, padding: 'same' }), images)
 *       const b = connect(conv2d({ filters: 8, kernelSize: 1 }), images)
 *       return connect(dense({ units: 10 }), connect(flatten(), connect(add(), a, b)))
 *     })
 */
export function functional(options: ModelOptions, build: (images: Connection) => Connection): Model {
  const end = build({ uses: [], at: 'input', counts: new Map() })
  if (end.uses.length === 0) throw new UsageError('functional: expected at least one layer, received none')
  const model = { name: options.name ?? 'model', input: options.input, layers: end.uses, output: end.at }
  return Object.freeze(model)
}

/** Feeds places of a model to a layer and returns the place after it. */
export function connect(layer: Layer, ...sources: readonly Connection[]): Connection {
  const [first] = sources
  if (!first)
    throw new UsageError(`connect: ${layer.layer} expects at least one place to read from, received none`)
  const { counts } = first
  const uses = [...new Set(sources.flatMap(source => source.uses))]
  const number = (counts.get(layer.layer) ?? 0) + 1
  counts.set(layer.layer, number)
  const name = layer.name ?? `${layer.layer}_${number}`
  checkName(name)
  if (uses.some(use => use.name === name))
    throw new UsageError(`connect: expected a name of its own for each layer, received "${name}" twice`)
  return { uses: [...uses, { name, layer, inputs: sources.map(source => source.at) }], at: name, counts }
}

/** First parts of the names that programs and checkpoints give to what belongs to no layer. */
const RESERVED = [
  'input',
  'best',
  'optimizer',
  'next',
  'packed',
  'transposed',
  'keys',
  'augment',
  'step',
  'begin',
  'end',
  'data',
]

export function checkName(name: string, what = 'layer name'): void {
  const [first = ''] = name.split('/')
  if (first === '' || RESERVED.includes(first))
    throw new UsageError(
      `${what} "${name}": expected one that does not begin with ${RESERVED.join(', ')} or an empty part`,
    )
}
