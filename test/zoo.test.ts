/**
 * Every network of the zoo: parameter counts as published, shapes, and what it is told that it cannot be
 * built for.
 */
import { describe, expect, test } from 'vitest'
import { input } from '../src/graph/ops/source.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Model } from '../src/nn/model.ts'
import type { Architecture } from '../src/zoo/architecture.ts'
import { architectureNamed, architectures, papers } from '../src/zoo/index.ts'
import { errorOf } from './error-of.ts'

type Input = readonly [number, number, number]

function built(model: Model) {
  return buildModel(model, input('images', 'float32', [2, ...model.input]), { training: false })
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)

/** Trained values, and those that Keras's summary counts: batch normalization's moving averages too. */
function counts(name: string, shape?: Input, classes?: number) {
  const { native, build } = architectureNamed(name)
  const { summary } = built(build(shape ?? native.input, classes ?? native.classes))
  const trained = sum(summary.map(({ parameters }) => parameters))
  return { trained, keras: trained + sum(summary.map(({ buffers }) => buffers)) }
}

describe('parameters', () => {
  // What the reports print, and what follows from what was assumed where they print nothing.
  test.for([
    ['singh-brar/basic', 693_962, 693_962],
    ['wang/dense', 266_610, 266_610],
    ['wang/cnn', 186_110, 186_110],
    ['korssjoen/dense', 1_466_122, 1_469_706],
    ['korssjoen/cnn', 7_320_394, 7_320_394],
    ['visionnet/plain', 1_480_010, 1_480_970],
    ['visionnet/attention-1', 1_480_013, 1_480_973],
    ['visionnet/attention-2', 1_741_130, 1_742_090],
    ['visionnet/attention-3', 3_090_698, 3_092_618],
    ['bassas/cnn', 623_306, 623_306],
    ['bassas/mlp-1', 101_770, 101_770],
    ['bassas/mlp-2', 118_282, 118_282],
    ['bassas/mlp-3', 134_794, 134_794],
    ['bassas/mlp-3-leaky-relu', 134_794, 134_794],
    ['bassas/mlp-3-tanh', 134_794, 134_794],
    ['bassas/mlp-3-dropout', 134_794, 134_794],
    ['bassas/mlp-3-dropout-256', 335_114, 335_114],
    ['bassas/mlp-3-unnormalized', 134_794, 134_794],
    // 61,706 with the first convolution's padding, as in textbooks.
    ['lenet5', 61_706, 61_706],
    // He 2016, table 6: 0.27M, 0.46M, 0.85M. Huang 2017, table 2: 0.8M.
    ['resnet20', 269_722, 271_098],
    ['resnet32', 464_154, 466_426],
    ['resnet56', 853_018, 857_082],
    ['densenet-bc', 769_162, 793_150],
    // Keras's applications with their heads, for ImageNet.
    ['vgg16', 138_357_544, 138_357_544],
    ['resnet50', 25_583_592, 25_636_712],
    ['xception', 22_855_952, 22_910_480],
  ] as const)('%s: %i', ([name, trained, keras]) => {
    expect(counts(name)).toEqual({ trained, keras })
  })

  /** The layers of a head, which `include_top=False` leaves out. */
  const head = ['fc1', 'fc2', 'predictions']
  test.for([
    ['vgg16', 14_714_688],
    ['resnet50', 23_587_712],
    ['xception', 20_861_480],
  ] as const)("%s without its head: Keras's %i, for any image", ([name, expected]) => {
    for (const side of [32, 64]) {
      const { summary } = built(architectureNamed(name).build([side, side, 3], 10))
      const body = summary.filter(layer => !head.includes(layer.name))
      expect(sum(body.map(({ parameters, buffers }) => parameters + buffers))).toBe(expected)
    }
  })
})

const shapes: readonly (readonly [Input, number])[] = [
  [[28, 28, 1], 10],
  [[32, 32, 3], 100],
  [[33, 47, 2], 3],
]

describe.for(architectures)('$name', architecture => {
  const { name, least } = architecture

  test.for(shapes)('for images of %j in %i classes', ([shape, classes]) => {
    const build = () => architecture.build(shape, classes)
    if (Math.min(...shape.slice(0, 2)) < least) {
      expect(errorOf(build)).toBe(
        `UsageError: ${name}: expected images of at least ${least} x ${least} pixels, received ${shape[0]} x ${shape[1]}`,
      )
      return
    }
    const { logits, parameters } = built(build())
    expect(logits.shape).toEqual([2, classes])
    expect(new Set(parameters.map(parameter => parameter.name)).size).toBe(parameters.length)
  })

  test('the least image is the least that its windows fit in', () => {
    expect(built(architecture.build([least, least, 3], 10)).logits.shape).toEqual([2, 10])
    expect(errorOf(() => architecture.build([least - 1, 40, 3], 10))).toMatch(/^UsageError: /)
    if (least === 1) return
    const tooSmall = { ...architecture.build([least, least, 3], 10), input: [least - 1, least, 3] as const }
    expect(errorOf(() => built(tooSmall))).toMatch(/does not fit in/)
  })

  test('a model is data', () => {
    const model = architecture.build([40, 40, 3], 10)
    expect(JSON.parse(JSON.stringify(model))).toEqual(model)
    expect(model.name).toBe(name)
  })
})

test('names and sources', () => {
  const names = architectures.map(({ name }) => name)
  expect(new Set(names).size).toBe(names.length)
  const citations = new Map<string, string>()
  for (const { source, stated } of architectures as readonly Architecture[]) {
    expect(stated.length).toBeGreaterThan(0)
    expect(citations.get(source.id) ?? source.citation).toBe(source.citation)
    citations.set(source.id, source.citation)
  }
  for (const paper of papers) {
    const arms = new Set(paper.arms.map(arm => arm.architecture))
    for (const arm of arms) expect(architectureNamed(arm).source.id).toBe(paper.id)
  }
})

test('numbers that are none', () => {
  const { build } = architectureNamed('wang/dense')
  const errors = [() => build([28, 28, 0], 10), () => build([28.5, 28, 1], 10), () => build([28, 28, 1], 0)]
  expect(errors.map(errorOf)).toEqual([
    'UsageError: wang/dense: channels must be a whole number of at least 1, received 0',
    'UsageError: wang/dense: height must be a whole number of at least 1, received 28.5',
    'UsageError: wang/dense: classes must be a whole number of at least 1, received 0',
  ])
})

describe("Keras's layer names, which its weights go by", () => {
  test.for([
    ['vgg16', ['block1_conv1', 'block5_conv3', 'fc1', 'fc2', 'predictions']],
    ['resnet50', ['conv1_conv', 'conv1_bn', 'conv2_block1_0_conv', 'conv5_block3_3_bn', 'predictions']],
    [
      'xception',
      [
        'block1_conv1',
        'conv2d',
        'conv2d_3',
        'batch_normalization_3',
        'block2_sepconv1',
        'block14_sepconv2_bn',
      ],
    ],
  ] as const)('%s', ([name, expected]) => {
    const names = architectureNamed(name)
      .build([64, 64, 3], 10)
      .layers.map(layer => layer.name)
    expect(names).toEqual(expect.arrayContaining([...expected]))
  })
})
