/** The examples of the documentation are files: typed with the rest, run here, and the same in the text. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import {
  conv2d,
  dense,
  flatten,
  loadDataSet,
  maxPooling2d,
  openEngine,
  rescaling,
  runTrial,
  sequential,
  trainingSpec,
} from 'fovea'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { peakInhibition } from '../docs/examples/mechanism.ts'

const root = new URL('..', import.meta.url)
const text = (path: string) => readFile(new URL(path, root), 'utf8')

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-docs-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('examples', () => {
  test.each([
    ['README.md', 'docs/examples/library.ts'],
    ['docs/adding-a-mechanism.md', 'docs/examples/mechanism.ts'],
  ])('%s shows %s as it is', async (page, example) => {
    expect(await text(page)).toContain((await text(example)).trimEnd())
  })

  test('the library example of the README trains a model', async () => {
    const run = promisify(execFile)
    const script = new URL('docs/examples/library.ts', root).pathname
    const { stdout } = await run(process.execPath, [
      '--conditions=fovea-source',
      script,
      join(folder, 'library'),
    ])
    const accuracy = Number(/test accuracy ([\d.]+) %/.exec(stdout)?.[1])
    expect(accuracy).toBeGreaterThan(60)
  })

  test('the mechanism of docs/adding-a-mechanism.md learns its strength and beats chance', async () => {
    const data = await loadDataSet('fashion-mnist-subset')
    const model = sequential(
      [
        rescaling({ scale: 1 / 255 }),
        conv2d({ filters: 8, kernelSize: 3, activation: 'relu' }),
        peakInhibition({ name: 'peak', size: 3, learned: true }),
        maxPooling2d(),
        flatten(),
        dense({ units: 10 }),
      ],
      { name: 'peak', input: data.imageShape },
    )
    const engine = await openEngine({ threads: 1 })
    try {
      const directory = join(folder, 'mechanism')
      const result = await runTrial(trainingSpec(model, data, { epochs: 2 }), data, { engine, directory })
      expect(result.test.accuracy).toBeGreaterThan(0.5)
      const { 'peak/strength': strength } = await engine.read(['peak/strength'])
      expect(strength?.shape).toEqual([8])
      expect(Array.from(strength!.data as Float32Array).some(s => Math.abs(s - 0.5) > 1e-3)).toBe(true)
    } finally {
      await engine.close()
    }
  })
})
