/** k-winners-take-all: only the most active units pass. */
import type { Tensor } from '../../graph/node.ts'
import { batchInward, batchOutward } from '../../graph/ops/batch-axis.ts'
import { add, exp, mul, step, stopGradient, sub } from '../../graph/ops/elementwise.ts'
import { reduceMean, topK } from '../../graph/ops/reduce.ts'
import { reshape, slice } from '../../graph/ops/shape.ts'
import { checkInteger, checkRange, UsageError } from '../../util/errors.ts'
import { sizeOf } from '../../util/host-tensor.ts'
import { describe, type LayerDefinition, layerError, only } from '../layer.ts'

export interface KWinnersTakeAllOptions {
  readonly name?: string
  /** Share of units that win, in (0, 1]: k is it times n, rounded, and at least 1. Give this or k. */
  readonly density?: number
  /** Number of units that win. */
  readonly k?: number
  /** Units that compete: the channels at each position (default), or all units of an image. */
  readonly over?: 'channels' | 'all'
  /** beta: how strongly units that won seldom are favoured; 0: not at all. Default: 1. */
  readonly boostStrength?: number
  /** T: images over which the duty cycle is averaged. Default: 1000. */
  readonly dutyCyclePeriod?: number
}

/**
 * y = x m, m_i = 1 where the boosted value x_i e^(beta (k / n - duty_i)) is among the k largest of the n
 * units that compete, else 0; the gradient is m. Any shape to the same shape. Units that tie with the k-th
 * largest all win: of rectified values with fewer than k above 0 also the zeros, which changes no output.
 *
 * Buffer dutyCycle [C]: how often each channel passed a value above 0, a moving average over T images that
 * starts at k / n. A training step with N images updates it, duty <- duty + (N / T) (share in this batch -
 * duty); evaluation uses it as it stands. Ahmad and Scheinkman 2019, arXiv 1903.11257; k is the same in
 * training and in evaluation, where the authors' code has an option for more in evaluation.
 *
 * @throws UsageError where an option is out of range, or neither or both of density and k are given
 */
export function kWinnersTakeAll(options: KWinnersTakeAllOptions) {
  const { name, density, k, over = 'channels', boostStrength = 1, dutyCyclePeriod = 1000 } = options
  if ((density === undefined) === (k === undefined))
    throw new UsageError(
      `kWinnersTakeAll: expected either density or k, received ${density === undefined ? 'neither' : 'both'}`,
    )
  if (density !== undefined && !(density > 0 && density <= 1))
    throw new UsageError(
      `kWinnersTakeAll: density must be a number above 0 and at most 1, received ${density}`,
    )
  if (k !== undefined) checkInteger('kWinnersTakeAll', 'k', k, 1)
  if (over !== 'channels' && over !== 'all')
    throw new UsageError(`kWinnersTakeAll: over must be "channels" or "all", received "${over}"`)
  checkRange('kWinnersTakeAll', 'boostStrength', boostStrength, 0)
  checkInteger('kWinnersTakeAll', 'dutyCyclePeriod', dutyCyclePeriod, 1)
  return describe({ layer: 'kWinnersTakeAll', name, density, k, over, boostStrength, dutyCyclePeriod })
}

export const kWinnersTakeAllDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof kWinnersTakeAll>, inputs, scope) {
    const x = only(layer, inputs, scope)
    const channels = x.shape.at(-1)!
    const isMap = x.shape.length === 4
    const images = x.shape.at(-2)!
    const n = layer.over === 'all' ? sizeOf(x.shape) / images : channels
    const k = layer.k ?? Math.max(1, Math.round(layer.density! * n))
    if (k > n) throw layerError(layer, scope, `k must be at most the ${n} units that compete, received ${k}`)

    const dutyCycle = scope.buffer('dutyCycle', [channels], {
      initial: () => new Float32Array(channels).fill(k / n),
    })
    const boosted = mul(x, exp(mul(sub(k / n, dutyCycle), layer.boostStrength)))
    // Images outermost where whole images compete.
    const whole = isMap && layer.over === 'all'
    const competing = reshape(whole ? batchOutward(boosted) : boosted, [-1, n])
    const winners = winnersOf(competing, k)
    const mask = whole
      ? batchInward(reshape(winners, [images, x.shape[0]!, x.shape[1]!, channels]))
      : reshape(winners, x.shape)
    const y = mul(x, stopGradient(mask))
    if (scope.training) {
      const share = reduceMean(reshape(step(y), [-1, channels]), [0])
      const rate = Math.min(1, images / layer.dutyCyclePeriod)
      const moved = mul(sub(reshape(share, [channels]), dutyCycle), rate)
      scope.update('dutyCycle', add(dutyCycle, moved))
    }
    return y
  },
}

/** 1 where a value is at least the k-th largest of its row, else 0. */
function winnersOf(rows: Tensor, k: number): Tensor {
  const threshold = slice(topK(rows, k), 1, k - 1, 1) // [R, 1]
  return sub(1, step(sub(threshold, rows)))
}
