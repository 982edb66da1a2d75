/** The examples of the documentation are files: typed with the rest, run here, and the same in the text. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import {
  conv2d,
  decodeModel,
  dense,
  flatten,
  formatModel,
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

const runExample = (name: string, argument: string) => {
  const script = fileURLToPath(new URL(`docs/examples/${name}`, root))
  return promisify(execFile)(process.execPath, ['--conditions=fovea-source', script, argument])
}

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-docs-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('examples', () => {
  test.each([
    ['README.md', 'docs/examples/library.ts'],
    ['docs/adding-a-mechanism.md', 'docs/examples/mechanism.ts'],
    ['docs/training-programs.md', 'docs/examples/program.ts'],
    ['docs/transfer.md', 'docs/examples/transfer.ts'],
  ])('%s shows %s as it is', async (page, example) => {
    expect(await text(page)).toContain((await text(example)).trimEnd())
  })

  test('the library example of the README trains a model', async () => {
    const { stdout } = await runExample('library.ts', join(folder, 'library'))
    const accuracy = Number(/test accuracy ([\d.]+) %/.exec(stdout)?.[1])
    expect(accuracy).toBeGreaterThan(60)
  })

  test('the example of docs/transfer.md trains a head on a frozen backbone', async () => {
    const { stdout } = await runExample('transfer.ts', join(folder, 'transfer'))
    expect(stdout).toContain('61706 parameters trained, then 850; 0 new tensors\n')
    expect(Number(/test accuracy ([\d.]+)/.exec(stdout)?.[1])).toBeGreaterThan(0.6)
  })

  test('the example of docs/training-programs.md writes a program that an engine loads, and prints it', async () => {
    const path = join(folder, 'linear.onnx')
    const { stdout } = await runExample('program.ts', path)
    const bytes = await readFile(path)
    expect(stdout).toBe(`${formatModel(decodeModel(bytes))}\n`)
    expect(stdout).toMatch(/^ir \d+, opset \d+.*, producer fovea\n/)
    const engine = await openEngine({ threads: 1 })
    try {
      const { inputs } = await engine.load(bytes)
      expect(inputs).toEqual(expect.arrayContaining(['steps', 'images', 'labels', 'order', 'scalars']))
    } finally {
      await engine.close()
    }
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

test('no page has a placeholder left', async () => {
  for (const page of [
    'README.md',
    'CHANGELOG.md',
    'docs/data.md',
    'docs/mechanisms.md',
    'docs/training-programs.md',
    'docs/transfer.md',
  ])
    expect(await text(page), page).not.toMatch(/\b(MEASURED|COSTS|EXAMPLE|TODO|FIXME)\b/)
})
