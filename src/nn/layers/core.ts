/** Dense layers, activations, dropout, and the layers that only join or reshape. */
import type { Tensor } from '../../graph/node.ts'
import { batchOutward } from '../../graph/ops/batch-axis.ts'
import { add as addTensors, mul } from '../../graph/ops/elementwise.ts'
import { vectorsTimes } from '../../graph/ops/flattened.ts'
import { randomMask } from '../../graph/ops/gather.ts'
import { concat, reshape } from '../../graph/ops/shape.ts'
import { checkInteger, checkRange } from '../../util/errors.ts'
import { sameShape } from '../../util/host-tensor.ts'
import { type Activation, activate } from '../activations.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, type LayerDefinition, layerError, only, showPublic, vectors } from '../layer.ts'
import { checkFraction, checkNumber } from '../options.ts'
import type { Regularizer } from '../regularizers.ts'

export interface DenseOptions {
  readonly name?: string
  /** Length of the output. */
  readonly units: number
  /** Default: linear. */
  readonly activation?: Activation
  /** Default: true. */
  readonly useBias?: boolean
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
  /** Default: `'zeros'`. */
  readonly biasInitializer?: Initializer | InitializerName
  /** Default: none. */
  readonly kernelRegularizer?: Regularizer
}

/** Fills in Keras's defaults of the options that dense and convolutional layers share. */
export function kernelOptions(options: Omit<DenseOptions, 'units'>) {
  const { activation = 'linear', useBias = true, kernelRegularizer } = options
  return {
    activation,
    useBias,
    kernelInitializer: toInitializer(options.kernelInitializer ?? 'glorotUniform'),
    biasInitializer: toInitializer(options.biasInitializer ?? 'zeros'),
    kernelRegularizer,
  }
}

/**
 * y = activation(x W + b). [N, F] to [N, units]; kernel [F, units], bias [units].
 * Keras's Dense and its defaults.
 *
 * @throws UsageError where units is no positive whole number
 */
export function dense(options: DenseOptions) {
  checkInteger('dense', 'units', options.units, 1)
  return describe({ layer: 'dense', name: options.name, units: options.units, ...kernelOptions(options) })
}

export const denseDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof dense>, inputs, scope) {
    const x = vectors(layer, inputs, scope)
    const { units, kernelInitializer, kernelRegularizer } = layer
    const kernel = scope.parameter('kernel', [x.shape[1]!, units], {
      initializer: kernelInitializer,
      regularizer: kernelRegularizer,
      multiplies: x,
    })
    let y = vectorsTimes(x, kernel)
    if (layer.useBias)
      y = addTensors(y, scope.parameter('bias', [units], { initializer: layer.biasInitializer }))
    return activate(y, layer.activation)
  },
}

/** An activation as a layer: `activation('tanh')`. Any shape. Keras's Activation. */
export function activation(name: Activation, options: { readonly name?: string } = {}) {
  return describe({ layer: 'activation', name: options.name, activation: name })
}
/** max(x, 0). */
export const relu = (options: { readonly name?: string } = {}) => activation('relu', options)
/** x where x > 0, slope x elsewhere. Keras's LeakyReLU; its default slope is 0.3. */
export function leakyRelu({ slope = 0.3, name }: { readonly slope?: number; readonly name?: string } = {}) {
  checkRange('leakyRelu', 'slope', slope, 0, 1)
  return activation({ activation: 'leakyRelu', slope }, name === undefined ? {} : { name })
}
/** x where x > 0, alpha (e^x - 1) elsewhere. Default: alpha 1. Clevert 2016, arXiv 1511.07289. */
export function elu({ alpha = 1, name }: { readonly alpha?: number; readonly name?: string } = {}) {
  checkRange('elu', 'alpha', alpha, 0)
  return activation({ activation: 'elu', alpha }, name === undefined ? {} : { name })
}

export const activationDefinition: LayerDefinition = {
  build: (layer: ReturnType<typeof activation>, inputs, scope) =>
    activate(only(layer, inputs, scope), layer.activation),
}

/** Feature maps [N, H, W, C] to vectors [N, H W C], in that order. Vectors stay. Keras's Flatten. */
export function flatten(options: { readonly name?: string } = {}) {
  return describe({ layer: 'flatten', name: options.name })
}

export const flattenDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof flatten>, inputs, scope) {
    const x = only(layer, inputs, scope)
    return x.shape.length === 2 ? x : reshape(batchOutward(x), [x.shape[2]!, -1])
  },
}

/**
 * y = scale x + offset. Default offset: 0. Keras's Rescaling;
 * `rescaling({ scale: 1 / 255 })` maps pixels to 0..1.
 */
export function rescaling(options: {
  readonly scale: number
  readonly offset?: number
  readonly name?: string
}) {
  const { name, scale, offset = 0 } = options
  checkNumber('rescaling', 'scale', scale)
  checkNumber('rescaling', 'offset', offset)
  return describe({ layer: 'rescaling', name, scale, offset })
}

export const rescalingDefinition: LayerDefinition = {
  build: (layer: ReturnType<typeof rescaling>, inputs, scope) =>
    addTensors(mul(only(layer, inputs, scope), layer.scale), layer.offset),
}

/**
 * Drops values with probability `rate` in training and scales the others by 1 / (1 - rate). Any shape. Which
 * values is a function of (seed, layer, step). Srivastava 2014; Keras's Dropout.
 *
 * @throws UsageError where rate is outside [0, 1)
 */
export function dropout(rate: number, options: { readonly name?: string } = {}) {
  checkFraction('dropout', 'rate', rate)
  return describe({ layer: 'dropout', name: options.name, rate })
}

export const dropoutDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof dropout>, inputs, scope) {
    const x = only(layer, inputs, scope)
    if (!scope.training || layer.rate === 0) return x
    const kept = 1 - layer.rate
    return mul(x, mul(randomMask(scope.randomKey('mask'), x.shape, kept), 1 / kept))
  },
}

/** The sum of inputs of one shape. Keras's Add. */
export function add(options: { readonly name?: string } = {}) {
  return describe({ layer: 'add', name: options.name })
}

export const addDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof add>, inputs, scope) {
    const [first] = inputs
    if (inputs.length < 2)
      throw layerError(layer, scope, `expected at least two inputs, received ${inputs.length}`)
    if (inputs.some(other => !sameShape(other.shape, first!.shape)))
      throw layerError(
        layer,
        scope,
        `expected inputs of one shape, received ${inputs.map(showPublic).join(' and ')}`,
      )
    return inputs.reduce((a, b) => addTensors(a, b))
  },
}

/** Inputs one after another along the last axis: channels, or features. Keras's Concatenate. */
export function concatenate(options: { readonly name?: string } = {}) {
  return describe({ layer: 'concatenate', name: options.name })
}

export const concatenateDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof concatenate>, inputs, scope) {
    if (inputs.length < 2)
      throw layerError(layer, scope, `expected at least two inputs, received ${inputs.length}`)
    const outside = (x: Tensor) => x.shape.slice(0, -1)
    if (inputs.some(other => !sameShape(outside(other), outside(inputs[0]!))))
      throw layerError(
        layer,
        scope,
        `expected inputs that differ in their channels only, received ${inputs.map(showPublic).join(' and ')}`,
      )
    return concat(inputs, inputs[0]!.shape.length - 1)
  },
}
