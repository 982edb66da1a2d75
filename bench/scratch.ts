/** One temporary folder for the bench and its peers, which goes with the process, however that ends (but by kill -9). */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

let folder: string | undefined

/** Its path; made at the first call. */
export function scratch(): string {
  folder ??= makeFolder()
  return folder
}

function makeFolder(): string {
  const made = mkdtempSync(join(tmpdir(), 'fovea-bench-'))
  process.on('exit', () => rmSync(made, { recursive: true, force: true, maxRetries: 3 }))
  return made
}
