/** Bounds on gradients before an update. As in Keras 3 (keras/src/optimizers/base_optimizer.py). */
import type { Tensor } from '../graph/node.ts'
import { add, clip, div, max, mul, sqrt, sub } from '../graph/ops/elementwise.ts'
import { sumOfSquares } from '../graph/ops/loss.ts'
import { UsageError } from '../util/errors.ts'
import { checkPositive } from './options.ts'

/** At most one of the three may be set. */
export interface Clipping {
  /** Scales each parameter's gradient down to at most this Euclidean norm. */
  readonly clipNorm?: number
  /** Keeps each element of a gradient within ± this value. */
  readonly clipValue?: number
  /** Scales all gradients together down to at most this Euclidean norm. */
  readonly globalClipNorm?: number
}

export const clippingNames = ['clipNorm', 'clipValue', 'globalClipNorm'] as const

/**
 * Throws a UsageError where more than one bound is set, or one is not above 0. `where` names the optimizer.
 */
export function checkClipping(where: string, clipping: Clipping): void {
  const set = clippingNames.filter(name => clipping[name] !== undefined)
  if (set.length > 1)
    throw new UsageError(
      `${where}: only one of clipNorm, clipValue and globalClipNorm may be set, received ${set.join(' and ')}`,
    )
  for (const name of set) checkPositive(where, name, clipping[name]!)
}

/**
 * The gradients of all parameters within the bound that is set; unchanged where none is. A gradient that is
 * not finite leaves a NaN behind, so that a diverged run is seen.
 */
export function clipGradients(gradients: readonly Tensor[], clipping: Clipping): readonly Tensor[] {
  const { clipNorm, clipValue, globalClipNorm } = clipping
  checkClipping('clipGradients', clipping)
  if (clipValue !== undefined) return gradients.map(gradient => clip(gradient, -clipValue, clipValue))
  if (clipNorm !== undefined)
    return gradients.map(gradient => mul(gradient, scaleTo(clipNorm, sqrt(sumOfSquares(gradient)))))
  if (globalClipNorm === undefined || gradients.length === 0) return gradients
  const scale = scaleTo(globalClipNorm, sqrt(gradients.map(sumOfSquares).reduce(add)))
  return gradients.map(gradient => mul(gradient, scale))
}

/**
 * 1 where `norm` is within `bound`, bound / norm beyond it; norm - norm makes it NaN
 * where the norm is not finite.
 */
function scaleTo(bound: number, norm: Tensor): Tensor {
  return add(div(bound, max(norm, bound)), sub(norm, norm))
}
