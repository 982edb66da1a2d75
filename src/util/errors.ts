/**
 * Errors that a person is meant to read: what is wrong, what was expected, what was received, and where.
 * The command line prints their message as one line, without a stack trace.
 */
export class FoveaError extends Error {
  override name = 'FoveaError'
  /** Exit code of the command line: 1 for a failure, 2 for a wrong use. */
  readonly exitCode: number = 1
}

/** The request itself is wrong: an unknown name, a wrong shape, a value out of range. */
export class UsageError extends FoveaError {
  override name = 'UsageError'
  override readonly exitCode = 2
}

/** Throws a {@link UsageError} unless `value` is a whole number of at least `least`. */
export function checkInteger(where: string, name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least)
    throw new UsageError(`${where}: ${name} must be a whole number of at least ${least}, received ${value}`)
}

/** Throws a {@link UsageError} unless `value` is a finite number within `[least, most]`. */
export function checkRange(where: string, name: string, value: number, least: number, most = Infinity): void {
  if (!Number.isFinite(value) || value < least || value > most) {
    const range = most === Infinity ? `at least ${least}` : `between ${least} and ${most}`
    throw new UsageError(`${where}: ${name} must be a number ${range}, received ${value}`)
  }
}

/** The name of `known` nearest to `name` by edit distance, or undefined where none is near. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  let least = Math.max(3, Math.floor(name.length / 2)) + 1
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (distance < least) {
      least = distance
      best = candidate
    }
  }
  return best
}

/** `unknown model "lenet"; did you mean "lenet5"? Known: ...` */
export function unknownName(what: string, name: string, known: readonly string[]): UsageError {
  const near = nearest(name, known)
  const hint = near === undefined ? '' : `; did you mean "${near}"?`
  return new UsageError(`unknown ${what} "${name}"${hint}${hint ? '' : ';'} known: ${known.join(', ')}`)
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitute = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(substitute, row[j]! + 1, next[j - 1]! + 1))
    }
    row = next
  }
  return row[b.length]!
}
