/** What a layer is: a frozen description, and a rule that builds it on a graph. */
import type { Tensor } from '../graph/node.ts'
import type { ConvMethod } from '../graph/ops/window.ts'
import { UsageError } from '../util/errors.ts'
import { type Shape, showShape } from '../util/host-tensor.ts'
import type { Key } from '../util/random.ts'
import type { Fans, Initializer, InitializerName } from './initializers.ts'
import type { Regularizer } from './regularizers.ts'

/** Anything that JSON can hold: a description can be hashed, stored and sent to another machine. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [name: string]: Json | undefined }

/** A layer as data: its kind and its options. */
export interface Layer {
  readonly layer: string
  readonly name?: string | undefined
  readonly [option: string]: Json | undefined
}

export interface ParameterOptions {
  readonly initializer: Initializer | InitializerName
  /** Overrides the fans that the shape tells, where a mask or groups change them. */
  readonly fans?: Fans
  readonly regularizer?: Regularizer | undefined
  /** What the parameter multiplies, as a matrix from the right: says how it is best kept while training. */
  readonly multiplies?: Tensor
}

/** How a buffer gets its values on the host. */
export interface BufferOptions {
  /** The values from a key of their own. */
  readonly initial: (key: Key) => ArrayLike<number>
  /** `'epoch'`: drawn anew, from another key, before each epoch. Default: never. */
  readonly redraw?: 'epoch'
}

/** What a layer builds with. Names are relative to the layer. */
export interface Scope {
  /** The layer's name in its model: `block2/conv1`. */
  readonly path: string
  /** True in a training program: dropout drops, batch normalization uses the batch. */
  readonly training: boolean
  /**
   * False in a frozen layer: what the layer computes is not to depend on the batch, as in evaluation.
   * Dropout is no part of that.
   */
  readonly trainable: boolean
  /** How convolutions are computed where they can be. Undefined: as is fastest. */
  readonly convolution: ConvMethod | undefined
  /** A trained tensor. */
  parameter(name: string, shape: Shape, options: ParameterOptions): Tensor
  /** A tensor that is saved but not trained. */
  buffer(name: string, shape: Shape, options: BufferOptions): Tensor
  /** Gives a buffer a new value after each training step. */
  update(name: string, value: Tensor): void
  /** A uint32 scalar that is new for each step: the key of this step's random numbers. */
  randomKey(name: string): Tensor
  /** A scope for a part of the layer. */
  part(name: string): Scope
  /**
   * Parameters that layers have in common: all that ask for one under the same name get the same tensor,
   * `name/...` in the model. It counts for the first of them, and is frozen with it.
   *
   * @throws UsageError where one asks for another shape or other initial values, or is frozen where the first
   *   is not
   */
  shared(name: string): Pick<Scope, 'parameter'>
}

/** A layer's rule. `inputs` are vectors [N, F] or feature maps [H, W, N, C], and so is the result. */
export interface LayerDefinition {
  // biome-ignore lint/suspicious/noExplicitAny: each definition knows the options of its own kind.
  build(layer: any, inputs: readonly Tensor[], scope: Scope): Tensor
}

/** Freezes a description and drops undefined options. */
export function describe<const T extends Layer>(layer: T): T {
  const defined = Object.fromEntries(Object.entries(layer).filter(([, value]) => value !== undefined))
  return Object.freeze(defined) as T
}

/** An error of a layer: `conv2d "block2/conv1": expected ..., received ...`. */
export function layerError(layer: Layer, scope: Scope, message: string): UsageError {
  return new UsageError(`${layer.layer} "${scope.path}": ${message}`)
}

/** The shape as at a public door: [N, H, W, C] for feature maps. */
export function showPublic(x: Tensor): string {
  const [h, w, , c] = x.shape
  return x.shape.length === 4 ? `[N, ${h}, ${w}, ${c}]` : showShape(['N', ...x.shape.slice(1)])
}

/** The only input, which must be feature maps [H, W, N, C]. */
export function featureMaps(layer: Layer, inputs: readonly Tensor[], scope: Scope): Tensor {
  const x = only(layer, inputs, scope)
  if (x.shape.length !== 4)
    throw layerError(layer, scope, `expected feature maps [N, H, W, C], received ${showPublic(x)}`)
  return x
}

/** The only input, which must be vectors [N, F]. */
export function vectors(layer: Layer, inputs: readonly Tensor[], scope: Scope): Tensor {
  const x = only(layer, inputs, scope)
  if (x.shape.length !== 2)
    throw layerError(
      layer,
      scope,
      `expected vectors [N, F], received ${showPublic(x)}; add flatten() or a pooling before it`,
    )
  return x
}

/** The only input, of either kind. */
export function only(layer: Layer, inputs: readonly Tensor[], scope: Scope): Tensor {
  if (inputs.length !== 1) throw layerError(layer, scope, `expected one input, received ${inputs.length}`)
  return inputs[0]!
}
