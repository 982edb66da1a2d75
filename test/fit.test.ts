/** Training on real images: it learns, repeats itself, resumes bit for bit, and says when it cannot go on. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  adam,
  batchNormalization,
  bernoulli,
  conv2d,
  cosineDecay,
  cutout,
  type DataSet,
  dense,
  dropout,
  type Engine,
  type FitResult,
  fit,
  flatten,
  l2,
  lateralInhibition,
  loadCheckpoint,
  loadDataSet,
  maxPooling2d,
  openEngine,
  randomCrop,
  randomFlip,
  randomNoise,
  randomRotation,
  rescaling,
  sequential,
  sgd,
  sparseDense,
  storeTrainingImages,
  type TrainEvent,
  trainingSpec,
} from 'fovea'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { bytesOf } from '../src/util/host-tensor.ts'
import { rejectionOf } from './error-of.ts'

let data: DataSet
let engine: Engine
let folder: string

beforeAll(async () => {
  data = await loadDataSet('fashion-mnist-subset')
  engine = await openEngine({ threads: 1 })
  await storeTrainingImages(engine, data)
  folder = await mkdtemp(join(tmpdir(), 'fovea-fit-'))
})
afterAll(async () => {
  await engine.close()
  await rm(folder, { recursive: true, force: true })
})

const input = [28, 28, 1] as const
const pixels = rescaling({ scale: 1 / 255 })

/** Everything that has state or draws random numbers. */
const everything = sequential(
  [
    pixels,
    conv2d({ filters: 4, kernelSize: 3, activation: 'relu' }),
    lateralInhibition({ learned: true }),
    maxPooling2d(),
    flatten(),
    sparseDense({
      units: 16,
      connectivity: bernoulli({ density: 0.3 }),
      redraw: 'epoch',
      kernelRegularizer: l2(1e-4),
    }),
    batchNormalization({ momentum: 0.9 }),
    dropout(0.2),
    dense({ units: 10 }),
  ],
  { name: 'everything', input },
)

/** Every way to draw: places of pixels, one number an image, one a value. */
const augmentation = [
  randomCrop({ padding: 2 }),
  randomFlip(),
  randomRotation({ degrees: 10 }),
  cutout({ size: 6 }),
  randomNoise({ deviation: 0.05 }),
]

const small = sequential(
  [pixels, flatten(), dense({ units: 16, activation: 'relu' }), dense({ units: 10 })],
  {
    name: 'small',
    input,
  },
)

/** 450 images: 14 minibatches of 32 and one of 2 in each epoch. */
const split = { fraction: 0.25, validation: 0.1 }

function expectSameBits(a: FitResult, b: FitResult): void {
  expect(Object.keys(a.values).sort()).toEqual(Object.keys(b.values).sort())
  for (const [name, value] of Object.entries(a.values))
    expect(Buffer.compare(bytesOf(value), bytesOf(b.values[name]!)), name).toBe(0)
  const numbers = (result: FitResult) => result.history.map(({ seconds, imagesPerSecond, ...rest }) => rest)
  expect(numbers(a)).toEqual(numbers(b))
}

describe('learning', () => {
  test('a small CNN reaches 78 % on held-out real images within 8 epochs of the subset', async () => {
    const model = sequential(
      [
        pixels,
        conv2d({ filters: 16, kernelSize: 3, activation: 'relu' }),
        maxPooling2d(),
        flatten(),
        dense({ units: 64, activation: 'relu' }),
        dense({ units: 10 }),
      ],
      { name: 'cnn', input },
    )
    const { history } = await fit(trainingSpec(model, data, { epochs: 8 }), data, { engine })
    expect(history).toHaveLength(8)
    expect(history.at(-1)!.validationAccuracy).toBeGreaterThan(0.78)
    expect(history.at(-1)!.trainLoss).toBeLessThan(history[0]!.trainLoss / 2)
  })

  test('a schedule sets the rate of each step', async () => {
    const optimizer = sgd({ learningRate: cosineDecay({ initialLearningRate: 0.1, decaySteps: 30 }) })
    const { history } = await fit(trainingSpec(small, data, { split, optimizer, epochs: 2 }), data, {
      engine,
    })
    // 15 steps an epoch: the last updates are numbers 14 and 29, counted from 0.
    const at = (step: number) => 0.05 * (1 + Math.cos((Math.PI * step) / 30))
    expect(history.map(record => record.learningRate)).toEqual([
      expect.closeTo(at(14), 12),
      expect.closeTo(at(29), 12),
    ])
  })
})

describe('repeating', () => {
  test('the same seed gives the same bits, another seed others', async () => {
    const spec = trainingSpec(everything, data, { split, epochs: 2, augmentation })
    const first = await fit(spec, data, { engine })
    expectSameBits(first, await fit(spec, data, { engine }))
    const other = await fit({ ...spec, seed: 2 }, data, { engine })
    expect(other.values['dense_1/kernel']!.data).not.toEqual(first.values['dense_1/kernel']!.data)
  })

  test('masks are drawn anew before each epoch', async () => {
    const masks = await Promise.all(
      [1, 2].map(async epochs => {
        const own = await openEngine({ threads: 1 })
        try {
          await storeTrainingImages(own, data)
          const { values } = await fit(trainingSpec(everything, data, { split, epochs }), data, {
            engine: own,
          })
          return values['sparseDense_1/mask']!.data as Float32Array
        } finally {
          await own.close()
        }
      }),
    )
    const differing = masks[0]!.filter((value, i) => value !== masks[1]![i]).length / masks[0]!.length
    expect(differing).toBeCloseTo(2 * 0.3 * 0.7, 1)
  })
})

describe('resuming', () => {
  test('from any interruption gives the bits of a run that was never interrupted', async () => {
    const earlyStopping = { monitor: 'accuracy' } as const
    const spec = trainingSpec(everything, data, { split, epochs: 4, earlyStopping, augmentation })
    const whole = await fit(spec, data, { engine })
    const path = join(folder, 'interrupted.safetensors')
    let interruptions = 0
    let result: FitResult | undefined
    while (!result) {
      const stop = new AbortController()
      const resume = interruptions > 0 ? await loadCheckpoint(path) : undefined
      let calls = 0
      const onEvent = (event: TrainEvent) => {
        if (event.type === 'progress' && ++calls === (interruptions % 3) + 1) stop.abort()
      }
      const options = { engine, onEvent, signal: stop.signal, checkpoint: { path } }
      const going = fit(spec, data, resume ? { ...options, resume } : options)
      result = await going.catch(error => {
        expect(error).toMatchObject({ name: 'Interrupted', exitCode: 130 })
        return undefined
      })
      if (!result) interruptions++
      expect(interruptions).toBeLessThan(100)
    }
    expect(interruptions).toBeGreaterThan(3)
    expectSameBits(whole, result)
  })

  test('a finished run goes on when more epochs are asked for', async () => {
    const path = join(folder, 'longer.safetensors')
    const spec = trainingSpec(small, data, { split, epochs: 1 })
    await fit(spec, data, { engine, checkpoint: { path } })
    const longer = { ...spec, epochs: 3 }
    const resumed = await fit(longer, data, {
      engine,
      checkpoint: { path },
      resume: await loadCheckpoint(path),
    })
    expectSameBits(await fit(longer, data, { engine }), resumed)
  })
})

describe('early stopping', () => {
  test('ends after the epochs of patience and gives the parameters of the best epoch', async () => {
    const events: TrainEvent[] = []
    const spec = trainingSpec(small, data, {
      split,
      epochs: 200,
      optimizer: adam({ learningRate: 0.01 }),
      earlyStopping: { monitor: 'loss', patience: 3 },
    })
    const result = await fit(spec, data, { engine, onEvent: event => events.push(event) })
    const losses = result.history.map(record => record.validationLoss!)
    const best = losses.indexOf(Math.min(...losses)) + 1
    expect(result.epoch).toBe(best)
    expect(result.history).toHaveLength(best + 3)
    expect(result.history.length).toBeLessThan(200)
    expect(events.filter(event => event.type === 'stopped')).toEqual([
      { type: 'stopped', epoch: best + 3, bestEpoch: best },
    ])
    const { earlyStopping: _, ...plain } = spec
    const untilBest = await fit({ ...plain, epochs: best }, data, { engine })
    for (const [name, value] of Object.entries(untilBest.values))
      expect(value.data, name).toEqual(result.values[name]!.data)
  })
})

describe('what cannot go on says so', () => {
  const spec = () => trainingSpec(small, data, { split, epochs: 2 })

  test('a diverged run names the epoch and the step', async () => {
    const optimizer = sgd({ learningRate: 1e30 })
    const error = await rejectionOf(fit({ ...spec(), optimizer }, data, { engine }))
    expect(error).toMatchObject({ name: 'Diverged', exitCode: 1 })
    expect(error.message).toMatch(
      /^training of "small" diverged: (the loss is (NaN|Infinity) at epoch 1, step \d+|a parameter is not finite at epoch 1, between steps \d+ and \d+) \(learning rate 1e\+30\); expected finite numbers: try a lower learning rate, or clipping$/,
    )
  })

  test.each([
    ['a batch larger than the split', { batchSize: 1000 }],
    ['no epochs', { epochs: 0 }],
    ['a seed below 0', { seed: -1 }],
    ['a negative rate in a stored description', { optimizer: { ...adam(), learningRate: -0.1 } }],
    ['nothing to watch', { split: { validation: 0 }, earlyStopping: { monitor: 'loss' as const } }],
  ])('%s', async (name, change) => {
    const error = await rejectionOf(fit({ ...spec(), ...change }, data, { engine }))
    expect(error.exitCode).toBe(2)
    expect(error.message).toMatchSnapshot(name)
  })

  test('logits that are not as many as the classes', async () => {
    const model = sequential([pixels, flatten(), dense({ units: 5 })], { name: 'five', input })
    const error = await rejectionOf(fit(trainingSpec(model, data), data, { engine }))
    expect(error.exitCode).toBe(2)
    expect(error.message).toMatchInlineSnapshot(
      `"model "five": layer "dense_1" gives 5 logits, expected 10, one for each class of fashion-mnist-subset"`,
    )
  })

  test('a checkpoint is there before the first step, and after the last, once', async () => {
    const path = join(folder, 'first.safetensors')
    const events: string[] = []
    const onEvent = ({ type }: TrainEvent) => events.push(type)
    await fit({ ...spec(), epochs: 1 }, data, { engine, checkpoint: { path, everySeconds: 0 }, onEvent })
    expect(events.indexOf('checkpoint')).toBeGreaterThanOrEqual(0)
    expect(events.indexOf('checkpoint')).toBeLessThan(events.indexOf('progress'))
    expect(events.slice(events.indexOf('epoch'))).toEqual(['epoch', 'checkpoint'])
  })

  test('a checkpoint of another model, a truncated one, a foreign file, none', async () => {
    const path = join(folder, 'other.safetensors')
    await fit({ ...spec(), epochs: 1 }, data, { engine, checkpoint: { path } })
    const resume = await loadCheckpoint(path)
    const another = trainingSpec(everything, data, { split, epochs: 1 })
    const messages = [await rejectionOf(fit(another, data, { engine, checkpoint: { path }, resume }))]
    const bytes = await readFile(path)
    for (const [file, content] of [
      ['truncated', bytes.subarray(0, bytes.length - 100)],
      ['foreign', Buffer.from('{"hello": "world"} and more than eight bytes')],
    ] as const) {
      await writeFile(join(folder, file), content)
      messages.push(await rejectionOf(loadCheckpoint(join(folder, file))))
    }
    messages.push(await rejectionOf(loadCheckpoint(join(folder, 'none'))))
    expect(messages.map(error => error.exitCode)).toEqual([1, 1, 1, 2])
    expect(messages.map(error => error.message.replaceAll(folder, 'FOLDER'))).toMatchSnapshot()
  })
})
