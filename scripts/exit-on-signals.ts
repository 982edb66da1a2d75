/** Signals that would kill a process end it instead, so that what it has for its `exit` runs. */
import { constants } from 'node:os'

/** The exit code is a shell's: 128 and the signal's number. */
export function exitOnSignals(): void {
  for (const name of ['SIGHUP', 'SIGINT', 'SIGTERM'] as const)
    process.on(name, () => process.exit(128 + constants.signals[name]))
}
