/** Options of the frozen descriptions: losses, optimizers, schedules, initializers. */
import { UsageError, unknownName } from '../util/errors.ts'

/**
 * The options that were given, over their defaults. An option given as undefined counts as left out.
 *
 * @param where names the description in an error: `'adam'`
 * @param optional names of options without a default
 * @throws UsageError where an option is unknown
 */
export function withDefaults<D extends object, G extends object>(
  where: string,
  defaults: D,
  given: G,
  optional: readonly string[] = [],
): D & G {
  const known = [...Object.keys(defaults), ...optional]
  const set = Object.entries(given).filter(([, value]) => value !== undefined)
  for (const [name] of set) if (!known.includes(name)) throw unknownName(`option of ${where}`, name, known)
  return { ...defaults, ...(Object.fromEntries(set) as G) }
}

/** Throws unless `value` is a finite number above 0. */
export function checkPositive(where: string, name: string, value: number): void {
  if (!Number.isFinite(value) || value <= 0)
    throw new UsageError(`${where}: ${name} must be a number above 0, received ${value}`)
}

/** Throws unless `value` lies in [0, 1), as a decay rate does. */
export function checkFraction(where: string, name: string, value: number): void {
  if (!(value >= 0 && value < 1))
    throw new UsageError(`${where}: ${name} must be a number of at least 0 and below 1, received ${value}`)
}

/** Throws unless `value` is true or false. */
export function checkFlag(where: string, name: string, value: boolean): void {
  if (typeof value !== 'boolean')
    throw new UsageError(`${where}: ${name} must be true or false, received ${show(value)}`)
}

/** Throws unless `value` is a finite number. */
export function checkNumber(where: string, name: string, value: number): void {
  if (!Number.isFinite(value))
    throw new UsageError(`${where}: ${name} must be a number, received ${show(value)}`)
}

function show(value: unknown): string {
  return typeof value === 'number' ? String(value) : JSON.stringify(value)
}
