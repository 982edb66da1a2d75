/**
 * Layers that prepare images for a pretrained network, against Keras, and the zoo's options that use them.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { batchOutward } from '../src/graph/ops/batch-axis.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import { buildModel, parameterCount } from '../src/nn/build.ts'
import { caffePixels, dense, flatten, type Layer, resizing, sequential } from '../src/nn/index.ts'
import { hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { key, uniform } from '../src/util/random.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'

interface Numbers {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

interface Case {
  readonly name: string
  readonly options?: { readonly height: number; readonly width: number }
  readonly images: Numbers
  readonly output: Numbers
}

const cases: readonly Case[] = JSON.parse(
  readFileSync(new URL('golden/weights.json', import.meta.url), 'utf8'),
).preprocessing

type Input = readonly [number, number, number]

/** The images, and what a layer makes of them, [N, H, W, C]. */
function applied(layer: Layer, [count, ...size]: readonly number[]) {
  const model = sequential([{ ...layer, name: 'tested' }, flatten(), dense({ units: 1 })], {
    input: size as unknown as Input,
  })
  const images = input('images', 'float32', [count!, ...size])
  return { images, y: batchOutward(buildModel(model, images, { training: false }).outputs.get('tested')!) }
}

test.for(cases)('$name, as Keras', async ({ options, images, output }) => {
  const { y } = applied(options ? resizing(options) : caffePixels(), images.shape)
  const [value] = await evaluate([y], { images: hostTensor('float32', images.shape, images.data) })
  const expected = { shape: output.shape, data: Float64Array.from(output.data) }
  expectClose({ shape: value!.shape, data: Float64Array.from(toNumbers(value!)) }, expected, 1e-6, 'output')
})

test.for(cases)(
  '$name is linear but for an offset: its gradient is the slope',
  async ({ options, images }) => {
    const { images: x, y } = applied(options ? resizing(options) : caffePixels(), images.shape)
    const cotangent = hostTensor('float32', y.shape, uniform(key(1, 'cotangent'), sizeOf(y.shape)))
    const loss = sumAll(mul(y, constant(cotangent)))
    const [dx] = gradients(loss, [x])
    const at = hostTensor('float32', images.shape, images.data)
    const step = uniform(key(1, 'step'), images.data.length)
    const moved = hostTensor(
      'float32',
      images.shape,
      images.data.map((value, i) => value + step[i]!),
    )
    const [slope, before] = await evaluate([dx!, loss], { images: at })
    const [after] = await evaluate([loss], { images: moved })
    const predicted = toNumbers(slope!).reduce((sum, value, i) => sum + value * step[i]!, 0)
    expect(Math.abs(toNumbers(after!)[0]! - toNumbers(before!)[0]! - predicted)).toBeLessThan(0.02)
  },
)

describe("the zoo's options", () => {
  const vgg16 = architectureNamed('vgg16')
  const kinds = (name: string, size: Input, options: Parameters<typeof vgg16.build>[2]) =>
    architectureNamed(name)
      .build(size, 10, options)
      .layers.slice(0, 4)
      .map(({ name: of, layer }) => [
        of,
        layer.layer,
        ...('height' in layer ? [layer.height, layer.width] : []),
      ])

  test("grey images become large images in ImageNet's form", () => {
    expect(kinds('vgg16', [28, 28, 1], { preprocessing: 'imagenet', resize: [224, 192] })).toEqual([
      ['resizing_1', 'resizing', 224, 192],
      ['grey_to_rgb', 'concatenate'],
      ['caffePixels_1', 'caffePixels'],
      ['block1_conv1', 'conv2d'],
    ])
    expect(kinds('resnet50', [32, 32, 3], { preprocessing: 'imagenet' })[0]).toEqual([
      'caffePixels_1',
      'caffePixels',
    ])
    expect(kinds('xception', [32, 32, 3], { preprocessing: 'imagenet' })[0]).toEqual([
      'rescaling_1',
      'rescaling',
    ])
  })

  test('nothing changes without them', () => {
    const model = vgg16.build([32, 32, 3], 10)
    expect(vgg16.build([32, 32, 3], 10, {})).toEqual(model)
    expect(model.layers[0]!.layer).toEqual({ layer: 'rescaling', scale: 1 / 127.5, offset: -1 })
  })

  test('a pooled head: 14,714,688 parameters of the backbone, and 512 x 10 + 10', () => {
    expect(parameterCount(vgg16.build([64, 64, 3], 10, { top: 'pooling' }))).toBe(14_714_688 + 5_130)
  })

  test('any architecture resizes; its least image is that of the resized', () => {
    const lenet = architectureNamed('lenet5')
    expect(lenet.build([64, 64, 1], 10, { resize: [28, 28] }).layers[0]!.name).toBe('resizing_1')
    const errors = [
      () => vgg16.build([64, 64, 3], 10, { resize: [16, 16] }),
      () => vgg16.build([64, 64, 3], 10, { resize: [0, 32] }),
      () => vgg16.build([64, 64, 2], 10, { preprocessing: 'imagenet' }),
      () => lenet.build([28, 28, 1], 10, { preprocessing: 'imagenet' }),
      () => lenet.build([28, 28, 1], 10, { top: 'pooling' }),
      () => resizing({ height: 2.5, width: 2 }),
      () => applied(caffePixels(), [1, 4, 4, 1]),
    ]
    expect(errors.map(errorOf)).toMatchInlineSnapshot(`
      [
        "UsageError: vgg16: expected images of at least 32 x 32 pixels, received 16 x 16",
        "UsageError: vgg16: expected images of at least 32 x 32 pixels, received 0 x 32",
        "UsageError: vgg16: expected images of 1 or 3 channels for ImageNet's preprocessing, received 2",
        "UsageError: lenet5: expected its own preprocessing and head, received imagenet; no weights trained on ImageNet are published for it",
        "UsageError: lenet5: expected its own preprocessing and head, received pooling; no weights trained on ImageNet are published for it",
        "UsageError: resizing: height must be a whole number of at least 1, received 2.5",
        "UsageError: caffePixels "tested": expected images of 3 channels (RGB), received 1",
      ]
    `)
  })
})
