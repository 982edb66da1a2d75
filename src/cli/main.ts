/** The entry of the command line. */
import { existsSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { tmpdir } from 'node:os'

// What Node makes of the sources is kept for the next start, which then takes half the time; here and, by the variable,
// in the engines' processes. NODE_DISABLE_COMPILE_CACHE=1 keeps nothing. Node would make a missing folder, for good or, in
// /proc, for ever.
const { directory } = existsSync(tmpdir()) ? enableCompileCache() : {}
if (directory !== undefined) process.env.NODE_COMPILE_CACHE ??= directory
const { reportFailure } = await import('./failure.ts')
const { createProgram } = await import('./program.ts')

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
