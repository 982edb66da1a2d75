/** The mean difference of pairs, with its interval: two arms that were run with the same seeds. */
import { summarize } from './summary.ts'

export interface PairedDifference {
  /** Pairs. */
  readonly n: number
  readonly mean: number
  /** Sample standard deviation of the differences. */
  readonly deviation: number
  /** The interval's ends. */
  readonly low: number
  readonly high: number
  /** The interval's coverage, 0.95. */
  readonly level: number
}

/**
 * Mean of `a[i] - b[i]` with Student's interval, `mean ± t s / sqrt(n)`, t of n - 1 degrees of freedom: exact
 * where the differences are normal. Student, "The probable error of a mean", Biometrika 1908.
 *
 * @throws RangeError for fewer than two pairs, or lists of different lengths
 */
export function pairedDifference(a: readonly number[], b: readonly number[], level = 0.95): PairedDifference {
  if (a.length !== b.length || a.length < 2)
    throw new RangeError(
      `paired difference: expected two pairs or more, received ${a.length} and ${b.length}`,
    )
  const { n, mean, deviation = 0 } = summarize(a.map((value, i) => value - b[i]!))
  const margin = (studentQuantile(level, n - 1) * deviation) / Math.sqrt(n)
  return { n, mean, deviation, low: mean - margin, high: mean + margin, level }
}

/**
 * Whether two arms differ by less than `margin`, by two one-sided t tests at 5 %: where the 90 % interval of the
 * paired difference lies within ± margin. That no difference was found would say less. Schuirmann, Journal of
 * Pharmacokinetics and Biopharmaceutics 15, 1987.
 *
 * @throws RangeError as {@link pairedDifference}
 */
export function equivalence(
  a: readonly number[],
  b: readonly number[],
  margin: number,
): { readonly difference: PairedDifference; readonly isEquivalent: boolean } {
  const difference = pairedDifference(a, b, 0.9)
  return { difference, isEquivalent: -margin < difference.low && difference.high < margin }
}

/** The t with P(|T| < t) = level, for T of Student's distribution with whole degrees of freedom. */
export function studentQuantile(level: number, degrees: number): number {
  let [low, high] = [0, 1]
  while (within(high, degrees) < level) high *= 2
  // Each round halves an interval of a float64: 60 leave nothing to halve.
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2
    if (within(middle, degrees) < level) low = middle
    else high = middle
  }
  return (low + high) / 2
}

/** P(|T| < t). Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, 26.7.3 and 26.7.4. */
function within(t: number, degrees: number): number {
  const angle = Math.atan(t / Math.sqrt(degrees))
  const [sin, cos] = [Math.sin(angle), Math.cos(angle)]
  const odd = degrees % 2 === 1
  let term = odd ? cos : 1
  let sum = degrees === 1 ? 0 : term
  for (let k = odd ? 3 : 2; k <= degrees - 2; k += 2) {
    term *= ((k - 1) / k) * cos * cos
    sum += term
  }
  return odd ? (2 / Math.PI) * (angle + sin * sum) : sin * sum
}
