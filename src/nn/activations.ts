/** Activation functions, as layers' options and as layers of their own. */
import type { Tensor } from '../graph/node.ts'
import { add, elu, erf, leakyRelu, mul, relu, sigmoid, softplus, tanh } from '../graph/ops/elementwise.ts'
import { softmax } from '../graph/ops/reduce.ts'
import { unknownName } from '../util/errors.ts'

const named = {
  linear: (x: Tensor) => x,
  relu,
  leakyRelu: (x: Tensor, slope = 0.2) => leakyRelu(x, slope),
  elu: (x: Tensor, alpha = 1) => elu(x, alpha),
  // x Phi(x), Phi the standard normal distribution function. Hendrycks and Gimpel 2016, arXiv 1606.08415
  gelu: (x: Tensor) => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1)),
  tanh,
  sigmoid,
  softplus,
  // x sigmoid(x). Ramachandran 2017, arXiv 1710.05941
  silu: (x: Tensor) => mul(x, sigmoid(x)),
  softmax,
} as const

export type ActivationName = keyof typeof named

/** A name, or a name with its constant: `{ activation: 'leakyRelu', slope: 0.1 }`. */
export type Activation =
  | ActivationName
  | { readonly activation: 'leakyRelu'; readonly slope: number }
  | { readonly activation: 'elu'; readonly alpha: number }

export const activationNames = Object.keys(named) as ActivationName[]

/**
 * Applies an activation. Softmax acts on the last axis. As in Keras, `'leakyRelu'` by
 * name has a slope of 0.2.
 */
export function activate(x: Tensor, activation: Activation): Tensor {
  const name = typeof activation === 'string' ? activation : activation.activation
  if (!Object.hasOwn(named, name)) throw unknownName('activation', String(name), activationNames)
  if (typeof activation === 'string') return named[name](x)
  return activation.activation === 'elu' ? elu(x, activation.alpha) : leakyRelu(x, activation.slope)
}
