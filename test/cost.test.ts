/** Multiply-adds: of single ops by hand, and of networks as published. */
import { describe, expect, test } from 'vitest'
import { multiplyAdds } from '../src/graph/cost.ts'
import { expansionOf, type Tensor, topological } from '../src/graph/node.ts'
import { scalarAttention } from '../src/graph/ops/attention.ts'
import { conv } from '../src/graph/ops/conv.ts'
import { add, relu } from '../src/graph/ops/elementwise.ts'
import { matMul } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import { windowOf } from '../src/graph/ops/window.ts'
import { gaussianTaps, lowPass } from '../src/nn/brain/gaussian.ts'
import { buildModel } from '../src/nn/build.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { gradientTable } from './gradients.table.ts'

const float = (...shape: number[]) => input(`x${shape}`, 'float32', shape)
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)
const of = (...stages: readonly Tensor[]) => sum(multiplyAdds(stages))

describe('by definition', () => {
  test('matrix products', () => {
    expect(of(matMul(float(3, 4), float(4, 5)))).toBe(3 * 4 * 5)
    expect(of(matMul(float(4, 3), float(5, 4), { transA: true, transB: true }))).toBe(3 * 4 * 5)
    expect(of(matMul(float(2, 1, 3, 4), float(6, 4, 5)))).toBe(2 * 6 * 3 * 4 * 5)
  })

  test('convolutions: every output is a sum over its taps and channels, those in the padding too', () => {
    const [same, strided] = [[1, 1] as const, [2, 2] as const].map(strides =>
      windowOf('conv', [9, 7], [3, 5], strides, 'same'),
    )
    expect(of(conv(float(9, 7, 2, 4), float(3, 5, 4, 6), undefined, same!))).toBe(9 * 7 * 2 * 6 * 3 * 5 * 4)
    expect(of(conv(float(9, 7, 2, 4), float(3, 5, 4, 6), float(6), strided!))).toBe(5 * 4 * 2 * 6 * 3 * 5 * 4)
    expect(of(conv(float(9, 7, 2, 4), float(3, 5, 2, 6), undefined, same!, 2))).toBe(
      9 * 7 * 2 * 6 * 3 * 5 * 2,
    )
    expect(of(conv(float(9, 7, 2, 4), float(3, 5, 1, 4), undefined, same!, 4))).toBe(9 * 7 * 2 * 4 * 3 * 5)
  })

  test('a fixed filter that is written as a matrix: its taps, and nothing for its zeros', () => {
    const filtered = lowPass(float(6, 5, 2, 3), gaussianTaps(2, 1))
    expect(of(filtered)).toBe(2 * 3 * ((5 * 5 - 6) * 6 + (5 * 6 - 6) * 5))
  })

  test('attention among values: scores, and sums over all values, exact or not', () => {
    for (const intervals of [0, 16])
      expect(of(scalarAttention(float(3, 10), float(1), { intervals, scoresAtOnce: 1000 }))).toBe(3 * 2 * 100)
  })

  test('what stages have in common counts once, for the first', () => {
    const shared = matMul(float(3, 4), float(4, 5))
    const after = matMul(relu(shared), float(5, 2))
    expect(multiplyAdds([shared, after, add(after, float(2)), shared])).toEqual([60, 30, 0, 0])
  })
})

/** The transposed products of a convolution's gradient: no part of a forward pass. */
const backward = ['ConvInputGradient', 'ConvKernelGradient', 'ConvBiasGradient']

test('every op that stands for matrix products counts as some', () => {
  const nodes = Object.values(gradientTable).flatMap(entry =>
    ('rows' in entry ? entry.rows : entry).flatMap(row => {
      const inputs = row.inputs.map(({ shape, dtype }, i) => input(`x${i}`, dtype ?? 'float32', shape))
      const built = row.build(...inputs)
      return topological(Array.isArray(built) ? built : [built as Tensor])
    }),
  )
  const composed = nodes.filter(({ op }) => op.expand && !backward.includes(op.op))
  const inside = (node: Tensor['node']) => (node.op.expand ? expansionOf(node) : node.inputs)
  const multiplying = composed.filter(node =>
    topological(expansionOf(node), inside).some(({ op }) => op.op === 'MatMul'),
  )
  const own = (node: Tensor['node']) =>
    sum(multiplyAdds([...node.inputs, ...node.outputs]).slice(node.inputs.length))
  expect([...new Set(multiplying.map(({ op }) => op.op))]).toEqual(
    expect.arrayContaining(['Conv', 'GroupedConv', 'DotProductAttention', 'ScalarAttention']),
  )
  expect(multiplying.filter(node => own(node) === 0).map(({ op }) => op.op)).toEqual([])
})

describe('networks', () => {
  const cost = (name: string, batch = 1) => {
    const { native, build } = architectureNamed(name)
    const model = build(native.input, native.classes)
    const images = input('images', 'float32', [batch, ...model.input])
    const { outputs, logits } = buildModel(model, images, { training: false })
    const layers = new Map(
      [...outputs.keys()].map((layer, i) => [layer, multiplyAdds([...outputs.values()])[i]!]),
    )
    expect(sum([...layers.values()])).toBe(of(logits))
    return layers
  }

  test.for([
    // He 2016 counts 15.3 thousand million in its convolutions; 0.12 are in the dense layers.
    ['vgg16', 15_470_264_320],
    // He 2016, table 1: 3.8 thousand million.
    ['resnet50', 3_857_973_248],
    // Chollet 2017 states none; counted the same way by others: 8.4 thousand million.
    ['xception', 8_357_403_496],
    // 41, 69 and 126 million, counted the same way by others.
    ['resnet20', 40_551_040],
    ['resnet32', 68_862_592],
    ['resnet56', 125_485_696],
    // 0.29 thousand million, counted the same way by others.
    ['densenet-bc', 287_929_692],
    // By hand: 28 28 6 25 + 10 10 16 25 6 + 400 120 + 120 84 + 84 10.
    ['lenet5', 416_520],
  ] as const)('%s: %i', ([name, expected]) => {
    expect(sum([...cost(name).values()])).toBe(expected)
  })

  test('a layer at a time, for each image of a batch', () => {
    const layers = cost('vgg16')
    expect(layers.get('block1_conv1')).toBe(224 * 224 * 64 * 27)
    expect(layers.get('block1_pool')).toBe(0)
    expect(layers.get('fc1')).toBe(25_088 * 4096)
    const twice = cost('lenet5', 2)
    for (const [layer, one] of cost('lenet5')) expect(twice.get(layer)).toBe(2 * one)
  })
})
