/** Penalties on weights, added to the loss. As in Keras 3 (keras/src/regularizers). */
import type { Tensor } from '../graph/node.ts'
import { add, mul } from '../graph/ops/elementwise.ts'
import { sumOfMagnitudes, sumOfSquares } from '../graph/ops/loss.ts'
import { scalar } from '../graph/ops/source.ts'
import { checkRange } from '../util/errors.ts'
import { withDefaults } from './options.ts'

/** `l1 sum |w| + l2 sum w^2`: a frozen description. */
export type Regularizer = { readonly l1: number; readonly l2: number }

/** `strength sum |w|`. Default: 0.01. */
export const l1 = (strength = 0.01): Regularizer => l1l2({ l1: strength })

/** `strength sum w^2`: no factor 1/2, as in Keras. Default: 0.01. */
export const l2 = (strength = 0.01): Regularizer => l1l2({ l2: strength })

/** `l1 sum |w| + l2 sum w^2`. Defaults: both 0. */
export function l1l2(options: Partial<Regularizer> = {}): Regularizer {
  const full = withDefaults('regularizer', { l1: 0, l2: 0 }, options)
  checkRange('regularizer', 'l1', full.l1, 0)
  checkRange('regularizer', 'l2', full.l2, 0)
  return Object.freeze(full)
}

/** The penalty of a tensor of weights of any shape, a scalar in their dtype. */
export function penalty(regularizer: Regularizer, weights: Tensor): Tensor {
  // A description may come from a file, past the checks of the function that makes one.
  const { l1: magnitudes, l2: squares } = l1l2(regularizer)
  const terms: Tensor[] = []
  if (magnitudes !== 0) terms.push(mul(sumOfMagnitudes(weights), magnitudes))
  if (squares !== 0) terms.push(mul(sumOfSquares(weights), squares))
  return terms.reduce(add, scalar(0, weights.dtype))
}
