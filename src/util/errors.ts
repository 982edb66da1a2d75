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

/** The name of `known` that `name` was most likely meant to be, or undefined where none is near. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  let least = Number.POSITIVE_INFINITY
  for (const candidate of known) {
    const distance = nameDistance(name.toLowerCase(), candidate.toLowerCase())
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

/** `group/name` is compared part by part, and its `name` with what was written without a group. */
function nameDistance(name: string, candidate: string): number {
  const slash = candidate.indexOf('/')
  if (slash === -1) return wordDistance(name, candidate)
  const [group, own] = [candidate.slice(0, slash), candidate.slice(slash + 1)]
  const written = name.indexOf('/')
  if (written !== -1)
    return wordDistance(name.slice(0, written), group) + wordDistance(name.slice(written + 1), own)
  return Math.min(wordDistance(name, own), wordDistance(name, candidate))
}

/**
 * Typing errors, of which a third of the letters, but at least one, may be; infinite beyond. A word that
 * is only begun or a part of the other counts as half an error or a little more, and may be mistyped
 * where it has four letters.
 */
function wordDistance(word: string, whole: string): number {
  const most = Math.min(Math.max(1, Math.floor(word.length / 3)), word.length - 1)
  const errors = typingErrors(word, whole)
  const distance = errors.at(-1)!
  const missing = distance / 1000
  if (distance === 0) return 0
  if (word.length >= 2 && whole.startsWith(word)) return 0.5 + missing
  if (word.length >= 3 && whole.includes(word)) return 0.75 + missing
  if (distance <= most) return distance
  const begun = Math.min(...errors)
  return word.length >= 4 && begun <= most ? begun + 0.5 + missing : Number.POSITIVE_INFINITY
}

/**
 * Letters to insert, remove, replace, or swap with the next, from `a` to the first 0,
 * 1, 2 ... letters of `b`.
 */
function typingErrors(a: string, b: string): readonly number[] {
  let before: readonly number[] = []
  let row: readonly number[] = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const other = swapped ? before[j - 2]! + 1 : replaced
      next.push(Math.min(replaced, other, row[j]! + 1, next[j - 1]! + 1))
    }
    before = row
    row = next
  }
  return row
}
