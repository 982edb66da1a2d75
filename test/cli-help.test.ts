/** The command line's surface: commands, options, defaults, examples, and what it prints without training. */
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { foveaVersion } from '../src/train/version.ts'
import { architectures } from '../src/zoo/index.ts'
import { fovea, node } from './cli-process.ts'

vi.setConfig({ testTimeout: 30_000 })

const bin = join(import.meta.dirname, '../bin/fovea.js')

test.for(['', 'reproduce', 'train', 'evaluate', 'predict', 'models', 'datasets', 'augment', 'profile'])(
  'help %s',
  async command => {
    const { code, stdout, stderr } = await fovea([...(command === '' ? [] : [command]), '--help'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatchSnapshot()
    const tooWide = stdout.split('\n').filter(line => line.length > 80)
    expect(tooWide).toEqual([])
  },
)

test('without a command: the help, and exit code 2', async () => {
  const { code, stdout, stderr } = await fovea([])
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(/^Usage: fovea /)
})

test("the package's binary runs the same program", async () => {
  expect(await node([bin, '--version'])).toMatchObject({ code: 0, stdout: `${foveaVersion}\n`, stderr: '' })
})

test('an older Node is told what is needed', async () => {
  const older = `data:text/javascript,Object.defineProperty(process, 'versions', { value: { node: '22.12.0' } })`
  expect(await node(['--import', older, bin, '--version'])).toMatchObject({
    code: 2,
    stdout: '',
    stderr: 'fovea: expected Node.js 22.13 or newer, received 22.12.0\n',
  })
})

test('models: every architecture, as a table and as JSON', async () => {
  const { stdout } = await fovea(['models'])
  const rows = stdout.trimEnd().split('\n').slice(1)
  expect(rows.map(row => row.trim().split(/ {2,}/)[0])).toEqual(architectures.map(({ name }) => name))
  const documents = JSON.parse((await fovea(['models', '--json'])).stdout)
  expect(documents).toContainEqual({
    name: 'singh-brar/basic',
    title: 'Basic CNN',
    parameters: 693_962,
    multiplyAdds: 888_192,
    input: [28, 28, 1],
    source: 'singh-brar-2024',
  })
})

test('models NAME: layers, what is stated and assumed, source', async () => {
  const { stdout } = await fovea(['models', 'singh-brar/sparse'])
  expect(stdout).toMatchSnapshot()
})

test('models NAME --input --classes: for other images', async () => {
  const flags = ['models', 'lenet5', '--input', '30x34x3', '--classes', '7']
  const { stdout } = await fovea(flags)
  expect(stdout).toMatchSnapshot()
  const { layers, ...facts } = JSON.parse((await fovea([...flags, '--json'])).stdout)
  expect(facts).toMatchObject({ input: [30, 34, 3], classes: 7, parameters: 71_351, multiplyAdds: 870_468 })
  expect(facts).not.toHaveProperty('dataSet')
  const sum = layers.reduce((total: number, layer: { multiplyAdds: number }) => total + layer.multiplyAdds, 0)
  expect(sum).toBe(facts.multiplyAdds)
})

test('datasets', async () => {
  const { stdout } = await fovea(['datasets'])
  expect(stdout).toMatchSnapshot()
  const documents = JSON.parse((await fovea(['datasets', '--json'])).stdout)
  expect(documents.map(({ name }: { name: string }) => name)).toContain('fashion-mnist-subset')
})

test('a reader that goes away early is no failure', async () => {
  const main = join(import.meta.dirname, '../src/cli/main.ts')
  // The pipe is closed before the program has started up.
  const script = `import('node:child_process').then(({ spawn }) => {
    const child = spawn(process.execPath, [${JSON.stringify(main)}, 'models', '--json'], { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.destroy()
    child.on('close', code => process.stdout.write('exit ' + code))
  })`
  expect(await node(['--eval', script])).toMatchObject({ stdout: 'exit 0', stderr: '' })
})
