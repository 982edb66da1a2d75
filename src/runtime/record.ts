/** Where ONNX Runtime's profiler writes in Node: a file of a temporary folder. */
import { createReadStream, rmSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Recording } from './loaded-program.ts'

const folders = new Set<string>()
process.on('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

export async function recordInFolder(): Promise<Recording> {
  const folder = await mkdtemp(join(tmpdir(), 'fovea-profile-'))
  folders.add(folder)
  return {
    prefix: join(folder, 'record'),
    async *lines(part = '') {
      // ONNX Runtime adds the time to the name.
      for (const name of await readdir(folder))
        if (name.startsWith(`record${part}`)) yield* createInterface(createReadStream(join(folder, name)))
    },
    async discard() {
      await rm(folder, { recursive: true, force: true })
      folders.delete(folder)
    },
  }
}
