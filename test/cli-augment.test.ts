/** fovea augment draws what training sees; train --augment trains on it, and goes on with it. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { expect, test, vi } from 'vitest'
import { loadDataSet } from '../src/data/registry.ts'
import { loadCheckpoint } from '../src/train/checkpoint.ts'
import { fovea, temporaryFolder } from './cli-process.ts'

vi.setConfig({ testTimeout: 90_000 })

const cwd = temporaryFolder()
const subset = ['--dataset', 'fashion-mnist-subset']

test('a picture of the images and their draws', async () => {
  const args = ['augment', ...subset, '--augment', 'flip:1', '--images', '3', '--draws', '2']
  const { code, stdout, stderr } = await fovea([...args, '--out', 'flipped.png', '--json'], { cwd })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const document = JSON.parse(stdout)
  expect(document).toMatchObject({
    out: 'flipped.png',
    augmentation: [{ augmentation: 'flip', probability: 1 }],
    images: [{ class: 'T-shirt/top' }, { class: 'Trouser' }, { class: 'Pullover' }],
  })
  const sheet = await sharp(join(cwd, 'flipped.png')).raw().toBuffer({ resolveWithObject: true })
  // Tiles of 28 pixels three times as large, 4 apart, 12 more after the first column.
  expect(sheet.info).toMatchObject({ width: 3 * 88 + 16, height: 3 * 88 + 4, channels: 3 })
  const { train } = await loadDataSet('fashion-mnist-subset')
  const pixels = train.images.data as Uint8Array
  for (const [i, { row }] of (document.images as { row: number }[]).entries()) {
    for (let y = 0; y < 28; y++) {
      for (let x = 0; x < 28; x++) {
        const shown = (left: number, column: number) =>
          sheet.data[((4 + i * 88 + 3 * y + 1) * sheet.info.width + left + 3 * column + 1) * 3]
        const value = pixels[row * 784 + y * 28 + x]
        expect([shown(4, x), shown(104, 27 - x), shown(192, 27 - x)]).toEqual([value, value, value])
      }
    }
  }
})

test('a picture beyond all sizes is refused before anything is computed', async () => {
  const args = ['augment', ...subset, '--augment', 'flip', '--images', '2000', '--draws', '2000']
  const { code, stderr } = await fovea([...args, '--out', 'huge.png'], { cwd })
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr:
      'fovea: augment: expected --images and --draws for a picture of at most 100000000 pixels, received 2000 and 2000: 176004 x 176104 pixels\n',
  })
  expect(existsSync(join(cwd, 'huge.png'))).toBe(false)
})

test('the same seed draws the same picture, another seed another one', async () => {
  const args = ['augment', ...subset, '--augment', 'crop:4,cutout:8,noise:0.1', '--images', '2']
  for (const [name, seed] of [
    ['one', '1'],
    ['again', '1'],
    ['two', '2'],
  ] as const)
    expect(await fovea([...args, '--out', `${name}.png`, '--seed', seed], { cwd })).toMatchObject({
      code: 0,
      stdout: `2 images of Fashion-MNIST (subset) (T-shirt/top, Trouser), 8 draws each: ${name}.png\n`,
    })
  const [one, again, two] = ['one', 'again', 'two'].map(name => readFileSync(join(cwd, `${name}.png`)))
  expect(again!.equals(one!)).toBe(true)
  expect(two!.equals(one!)).toBe(false)
})

test('training keeps the augmentation in its checkpoint, and goes on with it to the same bits', async () => {
  const args = ['train', '--model', 'wang/dense', ...subset, '--fraction', '0.2', '--threads', '1']
  const augment = ['--augment', 'crop:2:reflect,flip,rotate:10']
  const run = async (epochs: string, out: string) =>
    expect(await fovea([...args, ...augment, '--epochs', epochs, '--out', out], { cwd })).toMatchObject({
      code: 0,
    })
  await run('2', 'whole')
  await run('1', 'parts')
  expect(await fovea(['train', '--resume', 'parts', '--epochs', '2'], { cwd })).toMatchObject({ code: 0 })
  const [whole, parts] = await Promise.all(
    ['whole', 'parts'].map(name => loadCheckpoint(join(cwd, name, 'checkpoint.safetensors'))),
  )
  expect(parts!.state).toEqual(whole!.state)
  expect(whole!.spec.augmentation).toEqual([
    { augmentation: 'crop', padding: 2, mode: 'reflect' },
    { augmentation: 'flip', probability: 0.5 },
    { augmentation: 'rotate', degrees: 10 },
  ])
})

test.for([
  'crop',
  'crop:x',
  'crop:4:mirror',
  'crp:4',
  'crop:28',
  'cutout:29',
  'rotate:200',
  'noise:0',
  'flip:2',
  'flip,flip',
  'flip,,crop:4',
  'flip:0.5:1',
])('--augment %s', async list => {
  const { code, stdout, stderr } = await fovea(['augment', ...subset, '--augment', list], { cwd })
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(/^fovea: .*\n$/)
  expect(stderr).toMatchSnapshot()
  expect(existsSync(join(cwd, 'augment.png'))).toBe(false)
})

test('no list, and a picture that is no PNG', async () => {
  expect(await fovea(['augment'], { cwd })).toMatchObject({
    code: 2,
    stderr: 'fovea: augment: expected --augment LIST, as --augment crop:4,flip\n',
  })
  expect(await fovea(['augment', '--augment', 'flip', '--out', 'flip.jpg'], { cwd })).toMatchObject({
    code: 2,
    stderr: 'fovea: --out: expected a name that ends in .png, received "flip.jpg"\n',
  })
})
