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

/** The error that a promise is rejected with, which must be one that a person is meant to read. */
export async function rejectionOf(promise: Promise<unknown>): Promise<FoveaError> {
  const error = await promise.then(
    () => new Error('expected an error, none was thrown'),
    (reason: unknown) => reason,
  )
  if (error instanceof FoveaError) return error
  throw error
}
