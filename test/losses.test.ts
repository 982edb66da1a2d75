/** Losses and penalties, computed by ONNX Runtime: values and gradients against Keras's. */
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { emitGraph } from '../src/compile/emit.ts'
import type { Tensor } from '../src/graph/node.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { softmaxCrossEntropy, sumOfMagnitudes } from '../src/graph/ops/loss.ts'
import { reduceMean, sumAll } from '../src/graph/ops/reduce.ts'
import { reshape } from '../src/graph/ops/shape.ts'
import { input } from '../src/graph/ops/source.ts'
import * as losses from '../src/nn/losses.ts'
import { l1, l1l2, l2, penalty, type Regularizer } from '../src/nn/regularizers.ts'
import { type DType, hostTensor, toNumbers } from '../src/util/host-tensor.ts'
import { evaluate } from './evaluate.ts'
import golden from './golden/losses.json' with { type: 'json' }

const { lossPerExample } = losses

/** Keras's name and options as our description. */
function described({ loss, config, on }: (typeof golden.cases)[number]): losses.Loss {
  switch (loss) {
    case 'categorical_crossentropy':
      return losses.crossEntropy({ labelSmoothing: config.labelSmoothing! })
    case 'mean_squared_error':
      return losses.meanSquaredError({ of: on === 'softmax' ? 'probabilities' : 'logits' })
    case 'hinge':
      return losses.hinge()
    case 'squared_hinge':
      return losses.squaredHinge()
    case 'categorical_hinge':
      return losses.categoricalHinge()
  }
  throw new Error(`no loss of ours is Keras's ${loss}`)
}

/** The loss of each example and the gradient of their mean with respect to the logits. */
async function compute(
  loss: losses.Loss,
  dtype: 'float32' | 'float64',
  logits: { readonly shape: readonly number[]; readonly data: readonly number[] },
  labels: readonly number[],
) {
  const x = input('x', dtype, logits.shape)
  const perExample = lossPerExample(loss, x, input('labels', 'int32', [labels.length]))
  const [gradient] = gradients(reshape(reduceMean(perExample), []), [x])
  const results = await evaluate([perExample, gradient!], {
    x: hostTensor(dtype, logits.shape, logits.data),
    labels: hostTensor('int32', [labels.length], labels),
  })
  return results.map(toNumbers) as [number[], number[]]
}

function expectClose(received: readonly number[], expected: readonly number[], relative: number): void {
  expect(received).toHaveLength(expected.length)
  for (const [i, value] of expected.entries())
    expect(Math.abs(received[i]! - value), `[${i}]: ${received[i]}, expected ${value}`).toBeLessThanOrEqual(
      relative * Math.max(1, Math.abs(value)),
    )
}

describe.each(golden.cases)('$name', row => {
  const loss = described(row)

  // The golden values have nine digits.
  test.each([
    ['float64', 1e-8],
    ['float32', 2e-6],
  ] as const)("has Keras's values and gradients in %s", async (dtype, tolerance) => {
    const [perExample, gradient] = await compute(loss, dtype, row.logits, row.labels)
    expectClose(perExample, row.perExample.data, tolerance)
    expectClose(gradient, row.gradient.data, tolerance)
  })

  test('is a frozen description that survives JSON', () => {
    expect(Object.isFrozen(loss)).toBe(true)
    expect(JSON.parse(JSON.stringify(loss))).toEqual(loss)
  })
})

test.each<losses.LossName>(['crossEntropy', 'meanSquaredError', 'hinge', 'squaredHinge', 'categoricalHinge'])(
  '%s has a golden row',
  name => {
    expect(golden.cases.map(row => described(row).loss)).toContain(name)
  },
)

test('the defaults', () => {
  expect(losses.crossEntropy()).toEqual({ loss: 'crossEntropy', labelSmoothing: 0 })
  expect(losses.meanSquaredError()).toEqual({ loss: 'meanSquaredError', of: 'probabilities' })
})

describe('cross-entropy', () => {
  test('stays finite where a softmax would be 0 or overflow', async () => {
    const logits = { shape: [2, 3], data: [1e4, 0, -1e4, -500, 500, 0] }
    const [perExample, gradient] = await compute(losses.crossEntropy(), 'float32', logits, [2, 0])
    expect(perExample).toEqual([2e4, 1e3])
    expect(gradient).toEqual([0.5, 0, -0.5, -0.5, 0.5, 0])
  })

  test('shows a diverged run: a logit that is no number makes a loss that is none', async () => {
    const logits = { shape: [2, 2], data: [Number.NaN, 0, 1, 0] }
    const [perExample] = await compute(losses.crossEntropy(), 'float32', logits, [0, 0])
    expect(perExample[0]).toBeNaN()
    expect(perExample[1]).toBeCloseTo(Math.log(1 + Math.exp(-1)), 6)
  })

  test('its gradient takes a softmax, a difference and a product', () => {
    const x = input('x', 'float32', [4, 3])
    const targets = input('targets', 'float32', [4, 3])
    const dl = input('dl', 'float32', [4])
    const [gradient] = gradients(sumAll(mul(softmaxCrossEntropy(x, targets), dl)), [x])
    const { nodes } = emitGraph([{ name: 'dx', tensor: gradient! }], [x, targets, dl])
    const work = nodes.map(node => node.op).filter(op => !['Reshape', 'Expand'].includes(op))
    expect(work.filter(op => op !== 'Mul')).toEqual(['Softmax', 'Sub'])
    expect(work.filter(op => op === 'Mul').length).toBeLessThanOrEqual(2)
  })

  test('has a gradient with respect to the targets', async () => {
    const x = input('x', 'float64', [1, 2])
    const targets = input('targets', 'float64', [1, 2])
    const [gradient] = gradients(softmaxCrossEntropy(x, targets), [targets])
    const [values] = await evaluate([gradient!], { x: hostTensor('float64', [1, 2], [0, Math.log(3)]) })
    expectClose(toNumbers(values!), [-Math.log(1 / 4), -Math.log(3 / 4)], 1e-12)
  })
})

describe('refused', () => {
  const labels = (shape: number[], dtype: DType = 'int32') => input('labels', dtype, shape)
  const logits = (shape: number[], dtype: DType = 'float32') => input('logits', dtype, shape)

  test.each<[string, Tensor, Tensor, string]>([
    [
      'labels of another count',
      logits([4, 3]),
      labels([5]),
      'loss hinge: expected int32 labels of shape [4], one for each row of the logits [4, 3], received int32 [5]',
    ],
    [
      'one-hot labels',
      logits([4, 3]),
      labels([4, 3], 'float32'),
      'loss hinge: expected int32 labels of shape [4], one for each row of the logits [4, 3], received float32 [4, 3]',
    ],
    [
      'feature maps',
      logits([4, 4, 2, 3]),
      labels([4]),
      'loss hinge: expected float logits of shape [N, classes] with at least 2 classes, received float32 [4, 4, 2, 3]',
    ],
    [
      'a single class',
      logits([4, 1]),
      labels([4]),
      'loss hinge: expected float logits of shape [N, classes] with at least 2 classes, received float32 [4, 1]',
    ],
    [
      'whole numbers',
      logits([4, 3], 'int32'),
      labels([4]),
      'loss hinge: expected float logits of shape [N, classes] with at least 2 classes, received int32 [4, 3]',
    ],
  ])('%s', (_what, x, y, message) => {
    expect(() => lossPerExample(losses.hinge(), x, y)).toThrow(
      expect.objectContaining({ name: 'UsageError', message }),
    )
  })

  test('an unknown loss', () => {
    const unknown = { loss: 'crossEntropi' } as unknown as losses.Loss
    expect(() => lossPerExample(unknown, logits([4, 3]), labels([4]))).toThrow(
      'unknown loss "crossEntropi"; did you mean "crossEntropy"? known: crossEntropy, meanSquaredError, hinge, squaredHinge, categoricalHinge',
    )
  })

  test.each([1, -0.1, Number.NaN])('a label smoothing of %s', labelSmoothing => {
    expect(() => losses.crossEntropy({ labelSmoothing })).toThrow(
      `crossEntropy: labelSmoothing must be a number of at least 0 and below 1, received ${labelSmoothing}`,
    )
  })

  test('unknown options', () => {
    expect(() => losses.crossEntropy({ smoothing: 0.1 } as object)).toThrow(
      'unknown option of crossEntropy "smoothing"; did you mean "labelSmoothing"? known: labelSmoothing',
    )
    expect(() => losses.meanSquaredError({ of: 'logit' as 'logits' })).toThrow(
      'unknown "of" of meanSquaredError "logit"; did you mean "logits"? known: probabilities, logits',
    )
  })

  test('targets of another shape than the logits', () => {
    expect(() => softmaxCrossEntropy(logits([4, 3]), logits([4, 2]))).toThrow(
      'SoftmaxCrossEntropy: expected logits and targets of one shape [N, classes], received [4, 3] and [4, 2]',
    )
  })
})

describe('penalties', () => {
  const weights = [1, -2, 0, 0.5, -1e-20, 3]
  const w = input('w', 'float32', [2, 3])

  async function penaltyOf(regularizer: Regularizer) {
    const value = penalty(regularizer, w)
    const [gradient] = gradients(value, [w])
    const results = await evaluate([value, gradient!], { w: hostTensor('float32', [2, 3], weights) })
    return results.map(toNumbers) as [number[], number[]]
  }

  test.each([
    ['l1', l1(), 0.01, 0],
    ['l1 of 0.5', l1(0.5), 0.5, 0],
    ['l2', l2(), 0, 0.01],
    ['l2 of 0.5', l2(0.5), 0, 0.5],
    ['both', l1l2({ l1: 0.1, l2: 0.2 }), 0.1, 0.2],
    ['none', l1l2(), 0, 0],
  ])('%s', async (_name, regularizer, a, b) => {
    expect(regularizer).toEqual({ l1: a, l2: b })
    expect(Object.isFrozen(regularizer)).toBe(true)
    const [value, gradient] = await penaltyOf(regularizer)
    // l1 sum |w| + l2 sum w^2: |w| sums to 6.5, w^2 to 14.25; the sign of 0 is 0.
    expectClose(value, [a * 6.5 + b * 14.25], 1e-6)
    expectClose(
      gradient,
      weights.map(x => a * Math.sign(x) + 2 * b * x),
      1e-6,
    )
  })

  test('of an infinite weight are infinite, of no number none', async () => {
    const x = input('x', 'float32', [2])
    for (const value of [Infinity, Number.NaN]) {
      const results = await evaluate([penalty(l2(), x), sumOfMagnitudes(x)], {
        x: hostTensor('float32', [2], [1, value]),
      })
      for (const result of results) expect(toNumbers(result)).toEqual([value])
    }
  })

  test('take numbers of at least 0', () => {
    expect(() => l1(-1)).toThrow('regularizer: l1 must be a number at least 0, received -1')
    expect(() => l2(Number.NaN)).toThrow('regularizer: l2 must be a number at least 0, received NaN')
    expect(() => l1l2({ l3: 1 } as object)).toThrow('unknown option of regularizer "l3"; did you mean "l1"?')
  })
})
