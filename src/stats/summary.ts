/** What several seeds of one arm say together. */
export interface Summary {
  readonly n: number
  readonly mean: number
  /** Sample standard deviation (n - 1); undefined for fewer than two values. */
  readonly deviation: number | undefined
  readonly least: number
  readonly most: number
}

/** Mean, sample standard deviation and range of at least one value. */
export function summarize(values: readonly number[]): Summary {
  const n = values.length
  if (n === 0) throw new RangeError('summarize: expected at least one value, received none')
  const mean = values.reduce((sum, value) => sum + value, 0) / n
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return {
    n,
    mean,
    deviation: n > 1 ? Math.sqrt(squares / (n - 1)) : undefined,
    least: Math.min(...values),
    most: Math.max(...values),
  }
}

/** The middle of at least one value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('median: expected at least one value, received none')
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2
}
