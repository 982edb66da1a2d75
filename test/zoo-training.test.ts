/**
 * Every architecture learns real images: the loss falls, and after a small budget the accuracy is above a
 * floor.
 */
import {
  type Architecture,
  adam,
  architectures,
  type DataSet,
  type Engine,
  loadDataSet,
  openEngine,
  storeTrainingImages,
  fit as train,
  trainingSpec,
} from 'fovea'
import { afterAll, beforeAll, expect, test } from 'vitest'

interface Budget {
  /** Training images; the rest of the subset is not used. */
  readonly images: number
  readonly epochs: number
  /** Side of the images in pixels. Default: 28, as they are. */
  readonly side?: number
  readonly learningRate?: number
  /** Least accuracy over the last epoch's training images. */
  readonly floor: number
}

/** Small and quick ones see many images once, the others few images several times. */
const SMALL: Budget = { images: 1500, epochs: 2, floor: 0.6 }

const budgets: Readonly<Record<string, Budget>> = {
  'korssjoen/cnn': { images: 64, epochs: 5, learningRate: 1e-4, floor: 0.4 },
  'bassas/cnn': { images: 500, epochs: 2, floor: 0.5 },
  'visionnet/plain': { images: 300, epochs: 2, floor: 0.5 },
  'visionnet/attention-1': { images: 32, epochs: 4, floor: 0.5 },
  'visionnet/attention-2': { images: 96, epochs: 3, floor: 0.5 },
  'visionnet/attention-3': { images: 96, epochs: 4, floor: 0.45 },
  // Glorot's weights without normalization: its plateau is longer than a test may be, so that only the loss
  // is held to fall.
  vgg16: { images: 16, epochs: 6, side: 32, learningRate: 1e-4, floor: 0 },
  resnet20: { images: 96, epochs: 4, floor: 0.5 },
  resnet32: { images: 64, epochs: 4, floor: 0.5 },
  resnet56: { images: 32, epochs: 5, floor: 0.5 },
  resnet50: { images: 32, epochs: 6, side: 32, floor: 0.5 },
  'densenet-bc': { images: 16, epochs: 4, floor: 0.5 },
  xception: { images: 16, epochs: 4, side: 32, floor: 0.5 },
}

let data: DataSet
let engine: Engine

beforeAll(async () => {
  data = await loadDataSet('fashion-mnist-subset')
  engine = await openEngine({ threads: 1 })
  await storeTrainingImages(engine, data)
})
afterAll(() => engine.close())

test.each(architectures.map(one => [one.name, one] as const))(
  '%s',
  async (name, { build }: Architecture) => {
    const { images, epochs, side = 28, learningRate = 1e-3, floor } = budgets[name] ?? SMALL
    const options = side === 28 ? {} : { resize: [side, side] as const }
    const spec = trainingSpec(build(data.imageShape, data.classes.length, options), data, {
      split: { fraction: images / data.train.count, validation: 0 },
      optimizer: adam({ learningRate }),
      batchSize: Math.min(32, images / 2),
      epochs,
      seed: 1,
    })
    const { history } = await train(spec, data, { engine })
    const last = history.at(-1)!
    expect(last.trainLoss).toBeLessThan(history[0]!.trainLoss)
    expect(last.trainAccuracy).toBeGreaterThanOrEqual(floor)
  },
  120_000,
)
