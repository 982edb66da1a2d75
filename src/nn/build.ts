/** Models on a graph: their layers' tensors, parameters, buffers and random streams. */
import { origins, type Tensor, topological, withOrigin } from '../graph/node.ts'
import { batchInward } from '../graph/ops/batch-axis.ts'
import { add } from '../graph/ops/elementwise.ts'
import { transpose } from '../graph/ops/shape.ts'
import { input } from '../graph/ops/source.ts'
import type { ConvMethod } from '../graph/ops/window.ts'
import { UsageError, unknownName } from '../util/errors.ts'
import { type Shape, showShape, sizeOf } from '../util/host-tensor.ts'
import { key } from '../util/random.ts'
import { initialize, toInitializer } from './initializers.ts'
import type { BufferOptions, Layer, ParameterOptions, Scope } from './layer.ts'
import { layerDefinition } from './layers.ts'
import { checkName, type Model } from './model.ts'
import { penalty } from './regularizers.ts'

/**
 * Parameters of at most so many values are updated together, as one vector: a step then runs an optimizer's
 * ops once for all biases, instead of once for each. To join larger ones and take them apart again costs more, where
 * a kernel updates each in one pass.
 */
export const SMALL_PARAMETER = 8192

/** A trained tensor of a built model, or one of a frozen layer. */
export interface Parameter {
  /** `conv2d_1/kernel`. */
  readonly name: string
  /** The name of its layer. */
  readonly layer: string
  /** Its layer is frozen: training leaves it as it is. */
  readonly frozen: boolean
  readonly tensor: Tensor
  /**
   * The Input whose transpose `tensor` is, where a training program is faster with it: gradients are taken by
   * it.
   */
  readonly transposed?: Tensor
  /** Values to start from. */
  initial(seed: number): Float32Array
}

/** A saved, untrained tensor of a built model. */
export interface Buffer {
  readonly name: string
  /** The name of its layer. */
  readonly layer: string
  readonly tensor: Tensor
  readonly redraw: 'epoch' | undefined
  /** Its value after a training step, where a step changes it. */
  readonly next: Tensor | undefined
  /** Values to start from, or for an epoch where they are drawn anew. */
  initial(seed: number, epoch?: number): Float32Array
}

/** One line of a model's summary. */
export interface LayerSummary {
  readonly name: string
  readonly layer: Layer
  /** The output's shape for one image, in public order: [H, W, C] or [F]. */
  readonly output: Shape
  readonly parameters: number
  readonly buffers: number
}

/** A model on a graph. */
export interface BuiltModel {
  /** Logits [N, classes]. */
  readonly logits: Tensor
  readonly parameters: readonly Parameter[]
  readonly buffers: readonly Buffer[]
  /** Names of the random streams of a training step. */
  readonly randomKeys: readonly string[]
  /** Sum of all regularizers, a scalar; undefined where there is none. */
  readonly penalty: Tensor | undefined
  readonly summary: readonly LayerSummary[]
  /** The output of each layer: [N, F] or [H, W, N, C]. */
  readonly outputs: ReadonlyMap<string, Tensor>
}

export interface BuildOptions {
  readonly training: boolean
  /**
   * Names of the layers that are not trained, as Keras's `trainable = False`: their parameters stay and have
   * no penalty, their buffers are neither updated nor drawn anew, and batch normalization uses its moving
   * averages. Dropout drops all the same. Default: none.
   *
   * @throws UsageError where the model has no layer of such a name
   */
  readonly frozen?: readonly string[]
  /** How convolutions are computed where they can be. Default: as is fastest. */
  readonly convolution?: ConvMethod
  /**
   * The uint32 scalar that keys a random stream at this step. Needed where a training model draws random
   * numbers.
   */
  readonly randomKey?: (name: string) => Tensor
}

/**
 * Builds a model on images: float32 [N, H, W, C], pixel values 0 to 255.
 *
 * @throws UsageError naming the layer, what it expected and what it received
 */
export function buildModel(model: Model, images: Tensor, options: BuildOptions): BuiltModel {
  const expected = showShape(['N', ...model.input])
  if (images.shape.length !== 4 || showShape(images.shape.slice(1)) !== showShape(model.input))
    throw new UsageError(
      `model "${model.name}": expected images ${expected}, received ${showShape(['N', ...images.shape.slice(1)])}`,
    )
  const frozen = frozenLayers(model, options)
  const collected = new Collected()
  const outputs = new Map<string, Tensor>([
    ['input', withOrigin(images.node.origin, () => batchInward(images))],
  ])
  const summary: LayerSummary[] = []
  for (const { name, layer, inputs } of model.layers) {
    checkName(name)
    // Branches that are joined later, and models that were stored, have not met `connect`'s check.
    if (outputs.has(name))
      throw new UsageError(
        `model "${model.name}": expected a name of its own for each layer, received "${name}" twice`,
      )
    const sources = inputs.map(source => {
      const tensor = outputs.get(source)
      if (tensor) return tensor
      throw new UsageError(
        `model "${model.name}": layer "${name}" reads "${source}", which does not stand before it`,
      )
    })
    const counts = collected.counts()
    const scope = collected.scope(name, { layer: name, frozen: frozen.has(name), options })
    const result = withOrigin({ pass: 'forward', layer: name }, () =>
      layerDefinition(layer).build(layer, sources, scope),
    )
    outputs.set(name, result)
    const after = collected.counts()
    summary.push({
      name,
      layer,
      output: result.shape.length === 4 ? [0, 1, 3].map(axis => result.shape[axis]!) : result.shape.slice(1),
      parameters: after.parameters - counts.parameters,
      buffers: after.buffers - counts.buffers,
    })
  }
  const logits = outputs.get(model.output)
  if (!logits)
    throw new UsageError(
      `model "${model.name}": its output "${model.output}" is none of its layers: ${model.layers.map(({ name }) => name).join(', ')}`,
    )
  if (logits.shape.length !== 2)
    throw new UsageError(
      `model "${model.name}": its output "${model.output}" must be logits [N, classes], received feature maps; add flatten() and dense()`,
    )
  return { ...collected.finish(), logits, summary, outputs }
}

function frozenLayers(model: Model, { frozen = [] }: BuildOptions): ReadonlySet<string> {
  const names = model.layers.map(({ name }) => name)
  const unknown = frozen.find(name => !names.includes(name))
  if (unknown !== undefined) throw unknownName(`layer of "${model.name}"`, unknown, names)
  return new Set(frozen)
}

/** Number of trained values of a model. */
export function parameterCount(model: Model): number {
  const images = input('images', 'float32', [1, ...model.input])
  const { parameters } = buildModel(model, images, { training: false })
  return parameters.reduce((sum, { tensor }) => sum + sizeOf(tensor.shape), 0)
}

/** The layer that is being built. */
interface Building {
  readonly layer: string
  readonly frozen: boolean
  readonly options: BuildOptions
}

/** Gathers what the layers of one model ask for. */
class Collected {
  private readonly parameters: Parameter[] = []
  private readonly buffers: (Omit<Buffer, 'next'> & { next: Tensor | undefined })[] = []
  private readonly randomKeys: string[] = []
  private readonly penalties: Tensor[] = []
  /** Shared parameters by name: the layer that came first, and what it asked for. */
  private readonly shared = new Map<string, Building & { asked: string; tensor: Tensor }>()

  scope(path: string, building: Building): Scope {
    const { frozen, options } = building
    const full = (name: string) => `${path}/${name}`
    return {
      path,
      training: options.training,
      trainable: !frozen,
      convolution: options.convolution,
      parameter: (name, shape, spec) => this.parameter(full(name), shape, spec, building),
      buffer: (name, shape, spec) => this.buffer(full(name), shape, spec, building),
      update: (name, value) => {
        const buffer = this.buffers.find(other => other.name === full(name))
        if (!buffer) throw new UsageError(`layer "${path}": no buffer is named "${name}"`)
        if (!frozen) buffer.next = value
      },
      randomKey: name => {
        this.randomKeys.push(full(name))
        return options.randomKey?.(full(name)) ?? input(full(name), 'uint32', [])
      },
      part: name => this.scope(full(name), building),
      shared: name => {
        checkName(name, 'shared name')
        return {
          parameter: (part, shape, spec) => this.sharedParameter(`${name}/${part}`, shape, spec, building),
        }
      },
    }
  }

  counts() {
    const total = (all: readonly { tensor: Tensor }[]) =>
      all.reduce((sum, x) => sum + sizeOf(x.tensor.shape), 0)
    return { parameters: total(this.parameters), buffers: total(this.buffers) }
  }

  finish() {
    const { parameters, buffers, randomKeys, penalties } = this
    return {
      parameters,
      buffers,
      randomKeys,
      penalty: penalties.length > 0 ? withOrigin(origins.loss, () => penalties.reduce(add)) : undefined,
    }
  }

  private parameter(
    name: string,
    shape: Shape,
    { initializer, fans, regularizer, multiplies }: ParameterOptions,
    { layer, frozen, options }: Building,
  ): Tensor {
    const turn =
      options.training &&
      !frozen &&
      sizeOf(shape) > SMALL_PARAMETER &&
      multiplies !== undefined &&
      this.isFirst(multiplies)
    const transposed = turn ? input(`transposed/${name}`, 'float32', [shape[1]!, shape[0]!]) : undefined
    const tensor = transposed ? transpose(transposed, [1, 0]) : input(name, 'float32', shape)
    const description = toInitializer(initializer)
    const taken = this.parameters.find(other => other.name === name)
    if (taken)
      throw new UsageError(
        `layer "${layer}": expected a name of its own for parameter "${name}", which layer "${taken.layer}" has`,
      )
    this.parameters.push({
      name,
      layer,
      frozen,
      tensor,
      ...(transposed ? { transposed } : {}),
      initial: seed => initialize(description, shape, key(seed, 'init', name), fans),
    })
    // A sum over all weights, which their order does not change: as they are kept.
    if (regularizer && !frozen) this.penalties.push(penalty(regularizer, transposed ?? tensor))
    return tensor
  }

  private sharedParameter(name: string, shape: Shape, spec: ParameterOptions, building: Building): Tensor {
    const { initializer, fans, regularizer } = spec
    const values = { initializer: toInitializer(initializer), fans, regularizer }
    const asked = `${showShape(shape)} ${JSON.stringify(values)}`
    const known = this.shared.get(name)
    const first = known ?? { ...building, asked, tensor: this.parameter(name, shape, spec, building) }
    this.shared.set(name, first)
    const fail = (what: string) => new UsageError(`layer "${building.layer}": ${what}`)
    if (first.asked !== asked)
      throw fail(`expected "${name}" as layer "${first.layer}" has it, ${first.asked}, received ${asked}`)
    if (building.frozen && !first.frozen)
      throw fail(`it is frozen, but shares "${name}" with layer "${first.layer}", which is trained`)
    return first.tensor
  }

  /**
   * Whether a tensor depends on no trained parameter. A matrix that multiplies it is read in one direction
   * only, forwards, and twice as fast with its rows as columns; others are also read backwards, where the
   * gain would be lost.
   */
  private isFirst(tensor: Tensor): boolean {
    const trained = this.parameters.filter(parameter => !parameter.frozen)
    const own = new Set(trained.map(({ tensor: other, transposed }) => (transposed ?? other).node))
    return !topological([tensor]).some(node => own.has(node))
  }

  private buffer(
    name: string,
    shape: Shape,
    { initial, redraw }: BufferOptions,
    { layer, frozen }: Building,
  ): Tensor {
    const tensor = input(name, 'float32', shape)
    this.buffers.push({
      name,
      layer,
      tensor,
      redraw: frozen ? undefined : redraw,
      next: undefined,
      initial: (seed, epoch) =>
        Float32Array.from(
          initial(
            redraw && epoch !== undefined ? key(seed, 'buffer', name, epoch) : key(seed, 'buffer', name),
          ),
        ),
    })
    return tensor
  }
}
