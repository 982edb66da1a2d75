/** train, evaluate and predict on real images; interruptions and what they leave. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { expect, test, vi } from 'vitest'
import { z } from 'zod'
import { loadDataSet } from '../src/data/registry.ts'
import { loadCheckpoint, saveCheckpoint } from '../src/train/checkpoint.ts'
import { bytesOf } from '../src/util/host-tensor.ts'
import { fovea, temporaryFolder } from './cli-process.ts'

vi.setConfig({ testTimeout: 90_000, hookTimeout: 90_000 })

const cwd = temporaryFolder()
const subset = ['--dataset', 'fashion-mnist-subset', '--threads', '1']
const run = 'runs/singh-brar-basic_fashion-mnist-subset_seed-1'

const fraction = z.number().min(0).max(1)
const hash = z.string().regex(/^[0-9a-f]{64}$/)
const resultSchema = z.strictObject({
  fovea: z.string(),
  model: z.literal('singh-brar/basic'),
  dataSet: z.strictObject({ name: z.literal('fashion-mnist-subset'), hash, source: z.string() }),
  seed: z.literal(1),
  parameters: z.literal(693_962),
  epochs: z
    .array(
      z.strictObject({
        epoch: z.int(),
        learningRate: z.literal(0.001),
        trainLoss: z.number().positive(),
        trainAccuracy: fraction,
        validationLoss: z.number().positive(),
        validationAccuracy: fraction,
        seconds: z.number().positive(),
        imagesPerSecond: z.number().positive(),
      }),
    )
    .length(2),
  epoch: z.literal(2),
  test: z.strictObject({ images: z.literal(500), loss: z.number(), accuracy: fraction }),
  seconds: z.number().positive(),
  checkpoint: z.literal(`${run}/checkpoint.safetensors`),
  device: z.literal('cpu'),
  threads: z.literal(1),
  runtime: z.string().startsWith('onnxruntime-node '),
  programHash: hash,
  specHash: hash,
  machine: z.strictObject({ cpu: z.string(), cores: z.int(), platform: z.string(), node: z.string() }),
  spec: z.looseObject({ batchSize: z.literal(32), epochs: z.literal(2), seed: z.literal(1) }),
})

/** Tensors of a run's checkpoint as bytes, and its history without the clock. */
async function stateOf(folder: string) {
  const { state, best, position } = await loadCheckpoint(join(cwd, folder, 'checkpoint.safetensors'))
  const bytes = (tensors: typeof state = {}) =>
    Object.fromEntries(
      Object.entries(tensors).map(([name, value]) => [name, Buffer.from(bytesOf(value)).toString('base64')]),
    )
  const history = position.history.map(({ seconds: _, imagesPerSecond: __, ...record }) => record)
  return { state: bytes(state), best: bytes(best), history }
}

test('train, evaluate and predict agree', async () => {
  const args = ['train', '--model', 'singh-brar/basic', '--epochs', '2', ...subset, '--json']
  const trained = await fovea(args, { cwd })
  expect(trained.code).toBe(0)
  const result = resultSchema.parse(JSON.parse(trained.stdout))
  expect(result.test.accuracy).toBeGreaterThan(0.7)
  expect(JSON.parse(readFileSync(join(cwd, run, 'result.json'), 'utf8'))).toEqual(result)
  // One line for each epoch, and nothing else that changes.
  expect(trained.stderr.match(/^epoch \d\/2: loss .*$/gm)).toHaveLength(2)
  expect(trained.stderr.trimEnd().split('\n')).toHaveLength(4)

  const evaluated = await fovea(['evaluate', run, '--json'], { cwd })
  expect(JSON.parse(evaluated.stdout).test).toEqual(result.test)
  const text = await fovea(['evaluate', run], { cwd })
  expect(text.stdout).toContain(`test accuracy ${(result.test.accuracy * 100).toFixed(2)} %`)

  // The share of right predictions from files is the accuracy on those images.
  const { test: images, classes } = await loadDataSet('fashion-mnist-subset')
  const count = 40
  const files = await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const pixels = (images.images.data as Uint8Array).subarray(i * 784, (i + 1) * 784)
      const grey = sharp(pixels, { raw: { width: 28, height: 28, channels: 1 } })
      // Every other one dark on white, as a photo of a thing on paper is.
      const file = `${i}.png`
      await (i % 2 === 0 ? grey : grey.negate()).png().toFile(join(cwd, file))
      return file
    }),
  )
  const predicted = await fovea(['predict', run, ...files, '--json', '--top', '10'], { cwd })
  const predictions = JSON.parse(predicted.stdout) as {
    image: string
    inverted: boolean
    classes: { name: string; probability: number }[]
  }[]
  expect(predictions.map(({ image }) => image)).toEqual(files)
  for (const { classes: ranked } of predictions) {
    expect(ranked.map(({ name }) => name).toSorted()).toEqual(classes.toSorted())
    expect(ranked.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 5)
    expect(ranked[0]!.probability).toBeGreaterThanOrEqual(ranked[1]!.probability)
  }
  const right = predictions.filter(
    (prediction, i) => prediction.classes[0]!.name === classes[Number(images.labels.data[i])],
  )
  expect(right.length / count).toBeGreaterThan(0.65)

  // A picture and its negative are the same to the model, where the border tells them apart.
  const trouser = (images.labels.data as Int32Array).indexOf(classes.indexOf('Trouser'))
  const pixels = (images.images.data as Uint8Array).subarray(trouser * 784, (trouser + 1) * 784)
  const grey = sharp(pixels, { raw: { width: 28, height: 28, channels: 1 } })
  await grey.clone().png().toFile(join(cwd, 'dark.png'))
  await grey.clone().negate().png().toFile(join(cwd, 'light.png'))
  const both = JSON.parse((await fovea(['predict', run, 'dark.png', 'light.png', '--json'], { cwd })).stdout)
  expect(both[1]).toEqual({ ...both[0], image: 'light.png', inverted: true })
  const table = await fovea(['predict', run, 'dark.png', '--top', '1', '--threads', '2'], { cwd })
  expect(table.stdout).toMatch(/^ {2}image +class +probability\n {2}dark.png +Trouser +\d+\.\d\d %\n$/)

  writeFileSync(join(cwd, 'notes.txt'), 'no picture')
  for (const [file, reason] of [
    ['notes.txt', 'not an image that can be read (Input file contains unsupported image format)'],
    ['nowhere.png', 'no such file'],
    ['runs', 'expected an image file, received a folder or a device'],
  ])
    expect(await fovea(['predict', run, 'dark.png', file!], { cwd })).toMatchObject({
      code: 1,
      stdout: '',
      stderr: `fovea: ${file}: ${reason}\n`,
    })

  // The folder is taken: the next run gets a number, and an explicit one is refused.
  const again = await fovea(args.toSpliced(4, 1, '1'), { cwd })
  expect(JSON.parse(again.stdout).checkpoint).toBe(`${run}_2/checkpoint.safetensors`)
  expect(await fovea([...args, '--out', run], { cwd })).toMatchObject({
    code: 2,
    stderr: `fovea: ${run} holds a trial already; expected a new folder, or to resume it\n`,
  })
  expect(await fovea(['train', '--resume', run, '--seed', '2'], { cwd })).toMatchObject({
    code: 2,
    stdout: '',
  })
  expect(await fovea(['train', '--resume', run, '--epochs', '1'], { cwd })).toMatchObject({
    code: 2,
    stderr: 'fovea: --epochs: expected at least 2, which are done, received 1\n',
  })

  // What has ended is not trained again.
  const ended = await fovea(['train', '--resume', run, '--json'], { cwd })
  expect(ended).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(ended.stdout)).toEqual(result)

  // Moved: the result says where the checkpoint is now.
  renameSync(join(cwd, run), join(cwd, 'moved'))
  const moved = await fovea(['train', '--resume', 'moved', '--json'], { cwd })
  expect(JSON.parse(moved.stdout)).toEqual({ ...result, checkpoint: 'moved/checkpoint.safetensors' })
  writeFileSync(join(cwd, 'moved/result.json'), JSON.stringify({ ...result, test: {} }))
  const spoilt = await fovea(['train', '--resume', 'moved'], { cwd })
  expect(spoilt).toMatchObject({ code: 1, stdout: '' })
  expect(spoilt.stderr).toMatch(
    /^fovea: moved\/result.json: the result is damaged at "test.images": .*; remove it to have it made again$/m,
  )
  rmSync(join(cwd, 'moved/result.json'))
  const remade = await fovea(['train', '--resume', 'moved', '--json'], { cwd })
  expect(JSON.parse(remade.stdout)).toEqual({ ...result, checkpoint: 'moved/checkpoint.safetensors' })
  renameSync(join(cwd, 'moved'), join(cwd, run))

  // A truncated checkpoint.
  const path = join(cwd, run, 'checkpoint.safetensors')
  writeFileSync(path, readFileSync(path).subarray(0, 100_000))
  const damaged = await fovea(['evaluate', run], { cwd })
  expect(damaged.code).toBe(1)
  expect(damaged.stderr).toMatch(
    /^fovea: \S+: "hidden\/kernel": bytes \d+ to \d+ are not within the \d+ bytes of values: the file is damaged/,
  )
})

test('interrupted or killed, and resumed: the same bits as without', async () => {
  const args = ['train', '--model', 'singh-brar/lateral-inhibition', '--epochs', '3', ...subset]
  const early = ['--early-stopping', '5', '--checkpoint-every', '0.05']
  expect(await fovea([...args, ...early, '--out', 'whole'], { cwd })).toMatchObject({ code: 0 })
  const whole = await stateOf('whole')
  expect(Object.keys(whole.best).length).toBeGreaterThan(0)

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
    const delay = Math.round(Math.random() * 500)
    let sent = false
    const stopped = await fovea([...args, ...early, '--out', signal], {
      cwd,
      onStderr(text, child) {
        if (sent || !text.includes('epoch 1/3')) return
        sent = true
        setTimeout(() => child.kill(signal), delay)
      },
    })
    const where = `${signal} ${delay} ms after the first epoch`
    if (signal === 'SIGKILL') expect(stopped.signal, where).toBe('SIGKILL')
    else {
      expect(stopped, where).toMatchObject({ code: 130, stdout: '' })
      expect(stopped.stderr, where).toContain(
        `\nfovea: interrupted, nothing is lost; go on with: fovea train --resume ${signal}\n`,
      )
    }
    expect((await stateOf(signal)).history.length, where).toBeLessThan(whole.history.length)
    const resumed = await fovea(['train', '--resume', signal, '--json'], { cwd })
    expect(resumed.code, resumed.stderr).toBe(0)
    expect(await stateOf(signal), where).toEqual(whole)
  }
})

test('other threads than before are allowed, with a warning; more epochs go on from the end', async () => {
  const args = ['train', '--model', 'singh-brar/basic', '--epochs', '1', ...subset, '--fraction', '0.2']
  expect(await fovea([...args, '--out', 'one'], { cwd })).toMatchObject({ code: 0 })
  const more = await fovea(['train', '--resume', 'one', '--epochs', '2', '--threads', '2', '--json'], { cwd })
  expect(more.stderr).toContain(
    'fovea: warning: so far the trial ran with 1 thread on cpu, from here with 2 threads on cpu: the last bits of its results may differ\n',
  )
  const { epochs, threads } = JSON.parse(more.stdout)
  expect([epochs.length, threads]).toEqual([2, 2])

  // As another version of the runtime would have left it.
  const path = join(cwd, 'one/checkpoint.safetensors')
  const checkpoint = await loadCheckpoint(path)
  const { version } = checkpoint.engine
  await saveCheckpoint(path, {
    ...checkpoint,
    engine: { ...checkpoint.engine, version: 'onnxruntime-node 1.0.0' },
  })
  const other = await fovea(['train', '--resume', 'one', '--epochs', '3'], { cwd })
  expect(other.code).toBe(0)
  expect(other.stderr).toContain(
    `fovea: warning: so far the trial ran with onnxruntime-node 1.0.0, from here with ${version}: the last bits of its results may differ\n`,
  )
})
