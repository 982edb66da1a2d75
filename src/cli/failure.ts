/** How the command line fails: one line on stderr and an exit code. */
import { CommanderError } from 'commander'
import { FoveaError } from '../util/errors.ts'

/**
 * Prints an error and returns the exit code that it asks for: 0 where it is only
 * commander's way to end `--help`.
 */
export function reportFailure(error: unknown, verbose: boolean): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0
    // Without a command it has shown the help already.
    if (error.code !== 'commander.help') complain(fromCommander(error))
    return 2
  }
  const known = error instanceof FoveaError
  const message = error instanceof Error ? error.message : String(error)
  complain(
    known || verbose
      ? message
      : `unexpected error: ${message}; run again with --verbose for where it came from`,
  )
  if (verbose && error instanceof Error) process.stderr.write(`${error.stack}\n`)
  return known ? error.exitCode : 1
}

/** A remark on stderr that is no failure. */
export function warn(message: string): void {
  process.stderr.write(`fovea: warning: ${message}\n`)
}

/** Says that what was begun with one version goes on with another. */
export function warnOfOtherVersion(what: string, before: string | undefined, now: string): void {
  if (before === undefined || before === now) return
  warn(`so far ${what} ran with ${before}, from here with ${now}: the last bits of its results may differ`)
}

function complain(message: string): void {
  process.stderr.write(`fovea: ${message.replace(/\s*\n\s*/g, ' ')}\n`)
}

/**
 * `error: unknown option '--epoch'\n(Did you mean --epochs?)` in the words and quotes of Fovea's own errors.
 */
function fromCommander({ message }: CommanderError): string {
  return message
    .replace(/^error: /, '')
    .replace(/\n\(Did you mean (?:one of )?(.*)\?\)$/, (_, near: string) => `; did you mean "${near}"?`)
    .replaceAll("'", '"')
}
