/** The entry of the command line. */
import { reportFailure } from './failure.ts'
import { createProgram } from './program.ts'

const verbose = process.argv.includes('--verbose')

// A reader that has seen enough (`fovea models | head -1`) is no failure; without a reader of
// progress training goes on.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit()
})
process.stderr.on('error', () => {})
process.on('uncaughtException', error => {
  process.exit(reportFailure(error, verbose))
})

try {
  await createProgram().parseAsync()
} catch (error) {
  process.exitCode = reportFailure(error, verbose)
}
