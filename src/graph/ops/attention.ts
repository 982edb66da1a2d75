/**
 * Attention among the values of a vector, each of which is query, key and value by itself:
 *
 *   y_i = sum over j of softmax_j(s x_i x_j) x_j
 *
 * With t_i = s x_i this is the mean m(t_i) of the values, weighted by e^(t x_j): the derivative of ln sum_j
 * e^(t x_j). Its own derivatives are the weighted variance v(t) and the third central moment w(t), so that
 * the M x M matrix of scores is needed nowhere: neither kept for the gradient nor ever whole.
 */
import { UsageError } from '../../util/errors.ts'
import { hostTensor, showShape, sizeOf } from '../../util/host-tensor.ts'
import { apply, type OpDefinition, type Tensor } from '../node.ts'
import { abs, add, cast, div, exp, log, max, min, mul, neg, reciprocal, sub } from './elementwise.ts'
import { gather } from './gather.ts'
import { matMul, reduceMax, reduceSum } from './reduce.ts'
import { concat, expand, reshape, slice, split } from './shape.ts'
import { constant, sameDType, scalar } from './source.ts'

export interface ScalarAttentionAttributes {
  /** Evaluate on a grid of so many intervals over the range of the values; 0: for each value, exactly. */
  readonly intervals: number
  /**
   * The most scores that exist at once; at least one row of them, a score for each value of x, always does.
   */
  readonly scoresAtOnce: number
}

// y_i = m(s x_i). With t = s x, p_ij = softmax_j(t_i x_j):
//   ds = sum_i dy_i v(t_i) x_i, dx_j = s dy_j v(t_j) + sum_i dy_i p_ij (1 + t_i (x_j - y_i))
// The last sum is a function F of the number x_j alone, as y_i is one of x_i: it takes the same form, exact
// or on a grid.
export const ScalarAttention: OpDefinition = {
  op: 'ScalarAttention',
  shape([x, s]) {
    if (x!.shape.length !== 2 || sizeOf(s!.shape) !== 1)
      throw new UsageError(
        `ScalarAttention: expected values [N, M] and one scale, received ${showShape(x!.shape)} and ${showShape(s!.shape)}`,
      )
    return { dtype: sameDType('ScalarAttention', [x!, s!]), shape: x!.shape }
  },
  gradient({ inputs: [x, s], attributes }, [dy]) {
    const { centred, half, t, logSum, mean, variance } = weighted(x!, s!, attributes)
    const dt = mul(dy!, variance)
    const b = mul(dy!, t)
    const a = sub(dy!, mul(b, mean))
    // F(z) = sum_i e^(t_i z - logSum_i) (a_i + b_i z), z = x_j - middle
    const sums = (points: Tensor, columns: readonly Tensor[]) =>
      exponentialSums(points, onesLike(points), t, neg(logSum), columns, attributes.scoresAtOnce)
    const received = () => {
      if (attributes.intervals === 0) {
        const [p, q] = sums(centred, [a, b])
        return add(p!, mul(q!, centred))
      }
      const grid = gridOf(neg(half), mul(half, 2 / attributes.intervals), attributes.intervals)
      const [p, q, dp, dq] = sums(grid.points, [a, b, mul(t, a), mul(t, b)])
      const value = add(p!, mul(q!, grid.points))
      const slope = add(add(dp!, mul(dq!, grid.points)), q!)
      return interpolator(grid, centred)(value, slope)
    }
    return [add(mul(dt, s!), received()), reshape(reduceSum(mul(dt, x!)), s!.shape)]
  },
  expand({ inputs: [x, s], attributes }) {
    const { middle, mean } = weighted(x!, s!, attributes)
    return add(mean, middle)
  },
}

/**
 * y_i = sum_j softmax_j(s x_i x_j) x_j for the values x [N, M] of each image and a scale s of one value.
 *
 * On a grid of K intervals y is a cubic between values and slopes. In the complex plane the sum of e^(t x_j)
 * has no zero where |Im t| < pi / R, R the range of the image's values; by Cauchy's estimate |y - exact| is
 * below 0.09 R (L / (2.4 K))^4, L = |s| R^2 the range of the scores.
 */
export function scalarAttention(x: Tensor, s: Tensor, attributes: ScalarAttentionAttributes): Tensor {
  return apply(ScalarAttention, [x, s], attributes)
}

/**
 * ln sum_j e^(t_i z_j), and mean and variance of z = x - middle under these weights, for t = s x: all [N, M].
 */
function weighted(x: Tensor, s: Tensor, { intervals, scoresAtOnce }: ScalarAttentionAttributes) {
  const most = reduceMax(x, [1]) // [N, 1]
  const least = neg(reduceMax(neg(x), [1]))
  const middle = mul(add(most, least), 0.5)
  const half = mul(sub(most, least), 0.5)
  // Weights don't change with the origin; about the middle the squares below lose the fewest digits.
  const centred = sub(x, middle)
  const t = mul(x, s)
  const square = mul(centred, centred)
  const moments = (points: Tensor) => {
    const peak = mul(abs(points), half) // the largest exponent
    const columns = [onesLike(x), centred, square, mul(square, centred)]
    const [sum, first, second, third] = exponentialSums(
      points,
      neg(peak),
      centred,
      onesLike(x),
      intervals === 0 ? columns.slice(0, 3) : columns,
      scoresAtOnce,
    )
    const mean = div(first!, sum!)
    const squares = div(second!, sum!)
    const variance = sub(squares, mul(mean, mean))
    return { logSum: add(log(sum!), peak), mean, squares, variance, cubes: third && div(third, sum!) }
  }
  if (intervals === 0) return { middle, half, centred, t, ...moments(t) }
  const ends = [mul(least, s), mul(most, s)] as const
  const grid = gridOf(min(...ends), mul(mul(half, abs(s)), 2 / intervals), intervals)
  const { logSum, mean, squares, variance, cubes } = moments(grid.points)
  // w = E z^3 - 3 m E z^2 + 2 m^3
  const skew = sub(cubes!, mul(mean, sub(mul(squares, 3), mul(mul(mean, mean), 2))))
  const at = interpolator(grid, t)
  return {
    middle,
    half,
    centred,
    t,
    logSum: at(logSum, mean),
    mean: at(mean, variance),
    variance: at(variance, skew),
  }
}

/**
 * sum over m of e^(points_k rates_m + f_k g_m) column_m, for each column [N, M]: each [N, K]. In blocks of
 * points, whose scores are never more than `scoresAtOnce` where one row of them is not.
 */
function exponentialSums(
  points: Tensor,
  f: Tensor,
  rates: Tensor,
  g: Tensor,
  columns: readonly Tensor[],
  scoresAtOnce: number,
): readonly Tensor[] {
  const [n, k] = points.shape as unknown as readonly [number, number]
  const size = Math.min(k, Math.max(1, Math.floor(scoresAtOnce / sizeOf(rates.shape))))
  const blocks = Array.from({ length: Math.ceil(k / size) }, (_, i) => Math.min(size, k - i * size))
  const left = stacked([points, f])
  const right = stacked([rates, g])
  const values = stacked(columns)
  const sums = split(left, 1, blocks).map(block =>
    matMul(exp(matMul(block, right, { transB: true })), values),
  )
  const all = concat(sums, 1)
  return split(
    all,
    2,
    columns.map(() => 1),
  ).map(column => reshape(column, [n, k]))
}

/** Tensors [N, M] side by side: [N, M, count]. */
function stacked(tensors: readonly Tensor[]): Tensor {
  return concat(
    tensors.map(x => reshape(x, [...x.shape, 1])),
    2,
  )
}

function onesLike(x: Tensor): Tensor {
  return expand(reshape(scalar(1, x.dtype), [1, 1]), x.shape)
}

interface Grid {
  readonly first: Tensor // [N, 1]
  readonly step: Tensor // [N, 1]
  readonly intervals: number
  readonly points: Tensor // [N, intervals + 1]
}

function gridOf(first: Tensor, step: Tensor, intervals: number): Grid {
  const steps = Array.from({ length: intervals + 1 }, (_, i) => i)
  const points = add(first, mul(step, constant(hostTensor(first.dtype, [1, intervals + 1], steps))))
  return { first, step, intervals, points }
}

/**
 * Reads functions, given by values and slopes at the grid's points, at places [N, M]: cubic Hermite
 * interpolation.
 */
function interpolator({ first, step, intervals, points }: Grid, places: Tensor) {
  const n = points.shape[0]!
  // A grid of no extent, where all values of an image are the same, has all places at its first point.
  const position = mul(sub(places, first), reciprocal(max(step, 1e-30)))
  // Bounds after the cast, so that a NaN finds some cell and stays NaN in what is read there.
  const cell = max(min(cast(position, 'int32'), intervals - 1), 0)
  const u = sub(position, cast(cell, places.dtype))
  const offsets = Array.from({ length: n }, (_, i) => i * intervals)
  const index = add(cell, constant(hostTensor('int32', [n, 1], offsets)))
  return (values: Tensor, slopes: Tensor): Tensor => {
    const scaled = mul(slopes, step)
    const [f0, d0] = [values, scaled].map(x => slice(x, 1, 0, intervals))
    const [f1, d1] = [values, scaled].map(x => slice(x, 1, 1, intervals))
    const rise = sub(f1!, f0!)
    const coefficients = [
      sub(add(d0!, d1!), mul(rise, 2)),
      sub(sub(mul(rise, 3), mul(d0!, 2)), d1!),
      d0!,
      f0!,
    ].map(x => gather(reshape(x, [-1]), index))
    return coefficients.reduce((sum, coefficient) => add(mul(sum, u), coefficient))
  }
}
