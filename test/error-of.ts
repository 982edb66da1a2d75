/** For snapshots of messages. */
import { FoveaError } from '../src/util/errors.ts'

/** `UsageError: ...`: what `action` throws, which must be an error that a person is meant to read. */
export function errorOf(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    if (error instanceof FoveaError) return `${error.name}: ${error.message}`
    throw error
  }
  throw new Error('expected an error, none was thrown')
}
