/**
 * Self-attention layers beyond their golden values (brain.test.ts): memory, the grid's error, degenerate
 * inputs, shapes, errors.
 */
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { expansionOf, type Tensor, topological } from '../src/graph/node.ts'
import { scalarAttention } from '../src/graph/ops/attention.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import * as brain from '../src/nn/brain/index.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Layer } from '../src/nn/layer.ts'
import { dense, flatten } from '../src/nn/layers/core.ts'
import { sequential } from '../src/nn/model.ts'
import { hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { key, normal } from '../src/util/random.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'

type Size = readonly [number, number, number]

function built(layer: Layer, size: Size, batch = 2) {
  const model = sequential([layer, flatten(), dense({ units: 2 })], { input: size })
  const images = input('images', 'float32', [batch, ...size])
  return { images, ...buildModel(model, images, { training: true }) }
}

/** All tensors that a program computes for `outputs`. */
function computed(outputs: readonly Tensor[]): readonly Tensor[] {
  const inputsOf = (node: Tensor['node']) => (node.op.expand ? expansionOf(node) : node.inputs)
  return topological(outputs, inputsOf).flatMap(node => node.outputs)
}

describe('memory of valueAttention', () => {
  test.each([
    ['grid', [32, 32, 64], 32, 2 ** 24],
    ['exact', [4, 8, 32], 8, 2 ** 20],
  ] as const)(
    '%s: no tensor of a step on maps %j, batch %i, is above %i',
    (evaluation, size, batch, most) => {
      const layer = brain.valueAttention({ scoresAtOnce: most })
      const { logits, images, parameters } = built(layer, size, batch)
      const of = [images, ...parameters.map(({ tensor }) => tensor)]
      const tensors = computed([logits, ...gradients(sumAll(mul(logits, logits)), of)])
      const largest = Math.max(...tensors.map(({ shape }) => sizeOf(shape)))
      expect(largest).toBeLessThanOrEqual(most)
      // The blocks fill what they may: the bound was worth keeping.
      expect(largest).toBeGreaterThan(most / 2)
      expect(layer.evaluation).toBe('auto')
      // Only a grid is read by an index.
      expect(tensors.some(({ node }) => node.op.op === 'Gather')).toBe(evaluation === 'grid')
      expect(tensors.length).toBeLessThan(3000)
    },
  )
})

describe('the grid', () => {
  const values = normal(key(1, 'attention'), 2 * 300)
  const x = input('x', 'float32', [2, 300])
  const s = input('s', 'float32', [1])
  const run = async (scale: number, intervals: number, data: ArrayLike<number> = values) => {
    const y = scalarAttention(x, s, { intervals, scoresAtOnce: 2 ** 20 })
    const feeds = { x: hostTensor('float32', [2, 300], data), s: hostTensor('float32', [1], [scale]) }
    return evaluate([y, ...gradients(sumAll(mul(y, x)), [x, s])], feeds)
  }
  const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
    Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i]!)))

  test.each([
    [0.25, 32],
    [-1, 64],
    [1, 256],
    [4, 256],
  ])('scale %d, %i intervals: within the stated bound of the exact form', async (scale, intervals) => {
    const range = Math.max(
      ...[0, 1].map(image => {
        const own = values.slice(300 * image, 300 * (image + 1))
        return Math.max(...own) - Math.min(...own)
      }),
    )
    const scores = Math.abs(scale) * range ** 2
    const bound = 0.09 * range * (scores / (2.4 * intervals)) ** 4
    const [exact, grid] = [await run(scale, 0), await run(scale, intervals)].map(r => r.map(toNumbers))
    expect(distance(exact![0]!, grid![0]!)).toBeLessThan(bound + 1e-5)
    const largest = Math.max(...exact![1]!.map(Math.abs))
    expect(distance(exact![1]!, grid![1]!) / largest).toBeLessThan(10 * bound + 1e-4)
    expect(Math.abs(exact![2]![0]! - grid![2]![0]!) / Math.abs(exact![2]![0]!)).toBeLessThan(bound + 1e-3)
  })

  test.each([0, 64])('%i intervals: equal values attend to themselves', async intervals => {
    const [y, dx, ds] = await run(2, intervals, new Array(600).fill(1.5))
    expect(distance(toNumbers(y!), new Array(600).fill(1.5))).toBeLessThan(1e-5)
    // y = x here, and d(sum y x) = 2 x
    expect(distance(toNumbers(dx!), new Array(600).fill(3))).toBeLessThan(1e-3)
    expect(toNumbers(ds!)[0]).toBeCloseTo(0, 3)
  })

  test.each([0, 64])('%i intervals: a diverged image is seen as diverged', async intervals => {
    const data = values.map((value, i) => (i === 7 ? Number.NaN : value))
    const [y] = await run(1, intervals, data)
    expect(toNumbers(y!).slice(0, 300).every(Number.isNaN)).toBe(true)
    expect(toNumbers(y!).slice(300).every(Number.isFinite)).toBe(true)
  })
})

test('valueAttention: layers that share have one set of weights, and its gradient is the sum of theirs', async () => {
  const chain = (shared: string | undefined) => {
    const layers = ['a', 'b'].map(name => brain.valueAttention({ name, ...(shared ? { shared } : {}) }))
    const model = sequential([...layers, flatten()], { input: [2, 3, 2] })
    const images = input('images', 'float32', [1, 2, 3, 2])
    const { logits, parameters } = buildModel(model, images, { training: true })
    const names = parameters.map(({ name }) => name)
    const loss = sumAll(mul(logits, logits))
    return {
      names,
      results: [
        loss,
        ...gradients(
          loss,
          parameters.map(({ tensor }) => tensor),
        ),
      ],
    }
  }
  const values = { query: 0.5, key: -1.25, value: 0.75 }
  const feeds = Object.fromEntries(
    ['a', 'b', 's'].flatMap(owner =>
      Object.entries(values).map(([name, value]) => [
        `${owner}/${name}`,
        hostTensor('float32', [1], [value]),
      ]),
    ),
  )
  const images = hostTensor('float32', [1, 2, 3, 2], normal(key(4, 'attention'), 12))
  const [one, own] = [chain('s'), chain(undefined)]
  expect(one.names).toEqual(['s/query', 's/key', 's/value'])
  const of = async ({ results }: typeof one) =>
    (await evaluate(results, { ...feeds, images })).map(result => toNumbers(result)[0]!)
  const [loss, ...shared] = await of(one)
  const [same, ...apart] = await of(own)
  expect(loss).toBe(same)
  for (const [i, name] of one.names.entries()) {
    const sum = own.names.reduce(
      (total, other, j) => (other.slice(2) === name.slice(2) ? total + apart[j]! : total),
      0,
    )
    expect(shared[i]).toBeCloseTo(sum, 3)
    expect(Math.abs(sum)).toBeGreaterThan(0.01)
  }
})

test('shapes and parameters', () => {
  const summaries = [
    brain.valueAttention(),
    brain.pixelAttention(),
    brain.pixelAttention({ keyDim: 5 }),
    brain.mapAttention({ keyDim: 7 }),
    brain.mapAttention({ join: 'add' }),
    brain.squeezeExcitation({ reduction: 4 }),
    brain.squeezeExcitation({ reduction: 4, useBias: true }),
    brain.channelAttention(),
    brain.channelAttention({ reduction: 3, useBias: true }),
    brain.spatialAttention({ kernelSize: 3 }),
    brain.cbam({ reduction: 4 }),
    brain.nonLocal(),
    brain.saganAttention(),
    brain.multiHeadAttention({ numHeads: 2, keyDim: 3 }),
  ].map(layer => {
    const { summary, parameters } = built(layer, [3, 4, 8])
    expect(JSON.parse(JSON.stringify(layer))).toEqual(layer)
    const own = parameters.filter(({ name }) => name.startsWith(layer.layer))
    const shapes = own.map(({ name, tensor }) => `${name.replace(/^\w+\//, '')} [${tensor.shape}]`)
    return `${layer.layer}: ${summary[0]!.output} = ${shapes.join(', ')}`
  })
  expect(summaries).toMatchInlineSnapshot(`
    [
      "valueAttention: 3,4,8 = query [1], key [1], value [1]",
      "pixelAttention: 3,4,8 = query [8,8], key [8,8], value [8,8]",
      "pixelAttention: 3,4,8 = query [8,5], key [8,5], value [8,8]",
      "mapAttention: 3,4,16 = query [12,7], key [12,7]",
      "mapAttention: 3,4,8 = query [12,64], key [12,64]",
      "squeezeExcitation: 3,4,8 = squeeze/kernel [8,2], excite/kernel [2,8]",
      "squeezeExcitation: 3,4,8 = squeeze/kernel [8,2], squeeze/bias [2], excite/kernel [2,8], excite/bias [8]",
      "channelAttention: 3,4,8 = squeeze/kernel [8,1], excite/kernel [1,8]",
      "channelAttention: 3,4,8 = squeeze/kernel [8,2], squeeze/bias [2], excite/kernel [2,8], excite/bias [8]",
      "spatialAttention: 3,4,8 = kernel [3,3,2,1]",
      "cbam: 3,4,8 = channel/squeeze/kernel [8,2], channel/excite/kernel [2,8], spatial/kernel [7,7,2,1]",
      "nonLocal: 3,4,8 = query [8,4], key [8,4], value [8,4], output [4,8]",
      "saganAttention: 3,4,8 = query [8,1], key [8,1], value [8,1], output [1,8], gamma [1]",
      "multiHeadAttention: 3,4,8 = query/kernel [8,2,3], query/bias [2,3], key/kernel [8,2,3], key/bias [2,3], value/kernel [8,2,3], value/bias [2,3], output/kernel [2,3,8], output/bias [8]",
    ]
  `)
})

test.each([brain.nonLocal(), brain.saganAttention()])('$layer starts as the identity', async layer => {
  const { outputs, parameters, images } = built(layer, [2, 3, 4])
  const feeds = Object.fromEntries(
    parameters.map(({ name, tensor, initial }) => [name, hostTensor('float32', tensor.shape, initial(1))]),
  )
  const pixels = normal(key(2, 'attention'), sizeOf(images.shape))
  const x = outputs.get('input')!
  const [y, same] = await evaluate([outputs.get(`${layer.layer}_1`)!, x], {
    ...feeds,
    images: hostTensor('float32', images.shape, pixels),
  })
  expect(toNumbers(y!)).toEqual(toNumbers(same!))
})

test('errors', () => {
  const vectors = (layer: Layer) =>
    errorOf(() => {
      const model = sequential([flatten(), layer], { input: [2, 2, 1] })
      buildModel(model, input('images', 'float32', [2, 2, 2, 1]), { training: false })
    })
  expect([
    errorOf(() => brain.valueAttention({ evaluation: 'fast' as 'grid' })),
    errorOf(() => brain.valueAttention({ intervals: 0 })),
    errorOf(() => brain.valueAttention({ scoresAtOnce: 0.5 })),
    errorOf(() => brain.valueAttention({ kernelInitializer: 'heNorml' as 'heNormal' })),
    errorOf(() => built(brain.valueAttention({ evaluation: 'exact' }), [32, 32, 64], 32)),
    errorOf(() => brain.pixelAttention({ keyDim: 0 })),
    errorOf(() => brain.mapAttention({ keyDim: 1.5 })),
    errorOf(() => brain.mapAttention({ join: 'append' as 'add' })),
    errorOf(() => brain.squeezeExcitation({ reduction: 0 })),
    errorOf(() => brain.squeezeExcitation({ useBias: 1 as unknown as boolean })),
    errorOf(() => brain.channelAttention({ reduction: 1.5 })),
    errorOf(() => brain.spatialAttention({ kernelSize: 0 })),
    errorOf(() => brain.cbam({ reduction: 0 })),
    errorOf(() => brain.cbam({ kernelSize: 2.5 })),
    errorOf(() => brain.cbam({ useBias: 'no' as unknown as boolean })),
    errorOf(() => brain.nonLocal({ reduction: -1 })),
    errorOf(() => brain.saganAttention({ reduction: 0 })),
    errorOf(() => brain.multiHeadAttention({ numHeads: 0, keyDim: 2 })),
    errorOf(() => brain.multiHeadAttention({ numHeads: 2, keyDim: 0 })),
    ...[
      brain.valueAttention(),
      brain.pixelAttention(),
      brain.mapAttention(),
      brain.squeezeExcitation(),
      brain.channelAttention(),
      brain.spatialAttention(),
      brain.cbam(),
      brain.nonLocal(),
      brain.saganAttention(),
      brain.multiHeadAttention({ numHeads: 1, keyDim: 1 }),
    ].map(vectors),
  ]).toMatchInlineSnapshot(`
    [
      "UsageError: valueAttention: evaluation must be "auto", "exact" or "grid", received "fast"",
      "UsageError: valueAttention: intervals must be a whole number of at least 1, received 0",
      "UsageError: valueAttention: scoresAtOnce must be a whole number of at least 1, received 0.5",
      "UsageError: unknown initializer "heNorml"; did you mean "heNormal"? known: glorotUniform, glorotNormal, heUniform, heNormal, lecunUniform, lecunNormal, varianceScaling, randomNormal, truncatedNormal, randomUniform, orthogonal, zeros, ones, constant",
      "UsageError: valueAttention "valueAttention_1": 32 images of 65536 values in blocks of 16777216 scores are 8192 blocks, at most 1024 are possible; use evaluation "grid", fewer images in a batch or more scoresAtOnce",
      "UsageError: pixelAttention: keyDim must be a whole number of at least 1, received 0",
      "UsageError: mapAttention: keyDim must be a whole number of at least 1, received 1.5",
      "UsageError: mapAttention: join must be "concatenate" or "add", received "append"",
      "UsageError: squeezeExcitation: reduction must be a whole number of at least 1, received 0",
      "UsageError: squeezeExcitation: useBias must be true or false, received 1",
      "UsageError: channelAttention: reduction must be a whole number of at least 1, received 1.5",
      "UsageError: spatialAttention: kernelSize must be a whole number of at least 1, received 0",
      "UsageError: cbam: reduction must be a whole number of at least 1, received 0",
      "UsageError: cbam: kernelSize must be a whole number of at least 1, received 2.5",
      "UsageError: cbam: useBias must be true or false, received "no"",
      "UsageError: nonLocal: reduction must be a whole number of at least 1, received -1",
      "UsageError: saganAttention: reduction must be a whole number of at least 1, received 0",
      "UsageError: multiHeadAttention: numHeads must be a whole number of at least 1, received 0",
      "UsageError: multiHeadAttention: keyDim must be a whole number of at least 1, received 0",
      "UsageError: valueAttention "valueAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: pixelAttention "pixelAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: mapAttention "mapAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: squeezeExcitation "squeezeExcitation_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: channelAttention "channelAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: spatialAttention "spatialAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: cbam "cbam_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: nonLocal "nonLocal_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: saganAttention "saganAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
      "UsageError: multiHeadAttention "multiHeadAttention_1": expected feature maps [N, H, W, C], received [N, 4]",
    ]
  `)
})

test('pixelAttention with values of zero begins as the identity', async () => {
  const size = [4, 3, 5] as const
  const of = async (layer: Layer) => {
    const model = sequential([layer, flatten(), dense({ units: 2 })], { input: size })
    const images = input('images', 'float32', [2, ...size])
    const { outputs, parameters } = buildModel(model, images, { training: false })
    const x = hostTensor('float32', images.shape, [...normal(key(4, 'images'), sizeOf(images.shape))])
    const values = Object.fromEntries(
      parameters.map(({ name, tensor, initial }) => [
        name,
        { dtype: 'float32' as const, shape: tensor.shape, data: initial(1) },
      ]),
    )
    const [before, after] = await evaluate([outputs.get('input')!, outputs.get(model.layers[0]!.name)!], {
      ...values,
      images: x,
    })
    return [before!, after!].map(toNumbers)
  }
  const [x, same] = await of(brain.pixelAttention({ valueInitializer: 'zeros' }))
  expect(same).toEqual(x)
  const [, other] = await of(brain.pixelAttention())
  expect(other).not.toEqual(x)
})
