/** Optimizers, computed by ONNX Runtime step by step, against Keras's. */
import { describe, expect, test } from 'vitest'
import { emitGraph } from '../src/compile/emit.ts'
import type { Tensor } from '../src/graph/node.ts'
import { input } from '../src/graph/ops/source.ts'
import { clipGradients } from '../src/nn/clipping.ts'
import * as optimizers from '../src/nn/optimizers.ts'
import { cosineDecay, learningRateAt } from '../src/nn/schedules.ts'
import { type HostTensor, hostTensor, toNumbers, zeros } from '../src/util/host-tensor.ts'
import { evaluate } from './evaluate.ts'
import golden from './golden/optimizers.json' with { type: 'json' }

const { optimizerRule } = optimizers
type Factory = (options?: object) => optimizers.Optimizer

/** Keras's class -> our name. Adamax is not offered. */
const ours: Record<string, optimizers.OptimizerName> = {
  SGD: 'sgd',
  RMSprop: 'rmsprop',
  Adam: 'adam',
  AdamW: 'adamW',
  Nadam: 'nadam',
  Adagrad: 'adagrad',
}
const factory = (kerasName: string) =>
  Object.entries(optimizers).find(([name]) => name === ours[kerasName])![1] as Factory
const rows = golden.cases.filter(({ optimizer }) => optimizer in ours)

const clippingNames: Record<string, string> = {
  clipnorm: 'clipNorm',
  clipvalue: 'clipValue',
  globalClipnorm: 'globalClipNorm',
}
const renamed = (config: object) =>
  Object.fromEntries(Object.entries(config).map(([name, value]) => [clippingNames[name] ?? name, value]))

interface Values {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

/** The parameters after each step from `start` under given gradients. */
async function train(
  optimizer: optimizers.Optimizer,
  start: readonly Values[],
  steps: readonly (readonly Values[])[],
  dtype: 'float32' | 'float64',
): Promise<number[][][]> {
  const rule = optimizerRule(optimizer)
  const scalars = Object.fromEntries(rule.scalarNames.map(name => [name, input(name, dtype, [])]))
  const gradients = start.map(({ shape }, i) => input(`gradient${i}`, dtype, shape))
  const outputs: [string, Tensor][] = clipGradients(gradients, optimizer).flatMap((gradient, i) => {
    const slots = Object.fromEntries(
      rule.slots.map(slot => [slot, input(`${slot}${i}`, dtype, gradient.shape)]),
    )
    const after = rule.update(input(`parameter${i}`, dtype, gradient.shape), gradient, slots, scalars)
    expect(Object.keys(after.slots).sort()).toEqual([...rule.slots].sort())
    return [
      [`parameter${i}`, after.parameter] as [string, Tensor],
      ...Object.entries(after.slots).map(([slot, tensor]): [string, Tensor] => [`${slot}${i}`, tensor]),
    ]
  })
  const state: Record<string, HostTensor> = {}
  for (const [i, { shape, data }] of start.entries()) {
    state[`parameter${i}`] = hostTensor(dtype, shape, data)
    for (const slot of rule.slots) state[`${slot}${i}`] = zeros(dtype, shape)
  }
  const trace: number[][][] = []
  for (const [done, given] of steps.entries()) {
    const numbers = rule.scalars(done + 1, learningRateAt(optimizer.learningRate, done))
    const feeds = { ...state }
    for (const name of rule.scalarNames) feeds[name] = hostTensor(dtype, [], [numbers[name]!])
    for (const [i, { shape, data }] of given.entries()) feeds[`gradient${i}`] = hostTensor(dtype, shape, data)
    const results = await evaluate(
      outputs.map(([, tensor]) => tensor),
      feeds,
    )
    for (const [i, [name]] of outputs.entries()) state[name] = results[i]!
    trace.push(start.map((_, i) => toNumbers(state[`parameter${i}`]!)))
  }
  return trace
}

describe.each(rows)('$name', ({ optimizer: kerasName, config, kerasConfig, values }) => {
  const optimizer = factory(kerasName)(renamed(config))

  // The golden values have nine digits; the parameters are about 1 and move by 1e-3 a step or more.
  test.each([
    ['float64', 6e-9],
    ['float32', 1e-6],
  ] as const)("takes Keras's steps in %s", async (dtype, tolerance) => {
    const trace = await train(optimizer, golden.start, golden.gradients, dtype)
    for (const [step, parameters] of values.entries())
      for (const [i, { data }] of parameters.entries())
        for (const [j, expected] of data.entries()) {
          const received = trace[step]![i]![j]!
          expect(
            Math.abs(received - expected),
            `step ${step}, parameter ${i}[${j}]: ${received}, Keras ${expected}`,
          ).toBeLessThanOrEqual(tolerance * Math.max(1, Math.abs(expected)))
        }
  })

  test('has the options of Keras', () => {
    const { optimizer: _, ...options } = optimizer
    expect(options).toEqual(kerasOptions(kerasConfig))
  })
})

/**
 * Keras's configuration without what is unset, and without moving averages, loss scaling and accumulation.
 */
function kerasOptions(config: object): object {
  const { useEma, emaMomentum, ...options } = config as Record<string, unknown>
  expect([useEma, emaMomentum]).toEqual([false, 0.99])
  return renamed(Object.fromEntries(Object.entries(options).filter(([, value]) => value !== null)))
}

describe.each(Object.entries(ours))("Keras's %s", (kerasName, name) => {
  test('has golden rows', () => {
    expect(rows.map(row => row.optimizer)).toContain(kerasName)
  })

  test("has Keras's defaults", () => {
    const { optimizer, ...options } = factory(kerasName)()
    const defaults = golden.defaults[kerasName as keyof typeof golden.defaults]
    expect(optimizer).toBe(name)
    expect(options).toEqual(kerasOptions(defaults))
  })

  test('is a frozen description that survives JSON', () => {
    const optimizer = factory(kerasName)({
      learningRate: cosineDecay({ initialLearningRate: 1, decaySteps: 5 }),
    })
    expect(Object.isFrozen(optimizer)).toBe(true)
    const { optimizer: read, ...options } = JSON.parse(JSON.stringify(optimizer))
    expect(read).toBe(name)
    expect(factory(kerasName)(options)).toEqual(optimizer)
  })
})

test('every optimizer of the module is compared with Keras', () => {
  const factories = Object.keys(optimizers).filter(name => name !== 'optimizerRule')
  expect(factories.sort()).toEqual(Object.values(ours).sort())
})

test('a schedule is followed step by step', async () => {
  const learningRate = cosineDecay({ initialLearningRate: 0.5, decaySteps: 4 })
  const one = { shape: [1], data: [1] }
  const trace = await train(optimizers.sgd({ learningRate }), [one], [[one], [one], [one]], 'float64')
  const rates = [0, 1, 2].map(step => learningRateAt(learningRate, step))
  let expected = 1
  for (const [step, rate] of rates.entries()) {
    expected -= rate
    expect(trace[step]![0]![0]).toBeCloseTo(expected, 12)
  }
})

test('a small weight decay keeps its size', async () => {
  // 7.5 times float32's spacing below 1: a factor 1 - decay would be 7 % off. Over many weights the rounding
  // averages out.
  const decay = 7.5 * 2 ** -24
  const weights = { shape: [2000], data: Array.from({ length: 2000 }, (_, i) => Math.fround(1 + i / 2000)) }
  const none = { shape: [2000], data: weights.data.map(() => 0) }
  const optimizer = optimizers.sgd({ learningRate: 1, weightDecay: decay })
  const after = (await train(optimizer, [weights], [[none]], 'float32'))[0]![0]!
  const shrunk = weights.data.reduce((sum, before, i) => sum + (before - after[i]!) / before, 0) / 2000
  expect(Math.abs(shrunk / decay - 1)).toBeLessThan(0.02)
})

test('centered rmsprop survives a constant large gradient, whose variance rounds below 0', async () => {
  const gradient = { shape: [3], data: [1e4, -777.7, 3.3] }
  const steps = Array.from({ length: 60 }, () => [gradient])
  const trace = await train(
    optimizers.rmsprop({ centered: true, rho: 0.5 }),
    [{ shape: [3], data: [0, 0, 0] }],
    steps,
    'float32',
  )
  for (const value of trace.at(-1)![0]!) expect(value).not.toBeNaN()
})

test('an update of Adam takes ten passes', () => {
  const rule = optimizerRule(optimizers.adam())
  const w = (name: string) => input(name, 'float32', [8])
  const slots = { momentum: w('momentum'), velocity: w('velocity') }
  const rate = input('rate', 'float32', [])
  const after = rule.update(w('parameter'), w('gradient'), slots, { rate })
  const outputs = [after.parameter, after.slots.momentum!, after.slots.velocity!]
  const { nodes } = emitGraph(
    outputs.map((tensor, i) => ({ name: `o${i}`, tensor })),
    [],
  )
  expect(nodes.map(node => node.op).sort()).toEqual(
    ['Mul', 'Add', 'Mul', 'Mul', 'Add', 'Sqrt', 'Add', 'Mul', 'Div', 'Sub'].sort(),
  )
})

describe('clipping', () => {
  const given = [hostTensor('float32', [2], [3, 4]), hostTensor('float32', [1], [12])]

  async function clipped(clipping: Parameters<typeof clipGradients>[1], values = given): Promise<number[][]> {
    const inputs = values.map(({ shape }, i) => input(`g${i}`, 'float32', shape))
    const feeds = Object.fromEntries(values.map((value, i) => [`g${i}`, value]))
    return (await evaluate(clipGradients(inputs, clipping), feeds)).map(toNumbers)
  }

  test('by value, by norm, by the norm of all', async () => {
    expect(await clipped({ clipValue: 3.5 })).toEqual([[3, 3.5], [3.5]])
    expect(await clipped({ clipNorm: 10 })).toEqual([[3, 4], [10]])
    expect(await clipped({ clipNorm: 0.5 })).toEqual([[0.3, 0.4].map(Math.fround), [0.5]])
    // The norm of (3, 4, 12) is 13.
    expect(await clipped({ globalClipNorm: 13 })).toEqual([[3, 4], [12]])
    expect(await clipped({ globalClipNorm: 6.5 })).toEqual([[1.5, 2], [6]])
  })

  test('leaves gradients as they are where no bound is set', () => {
    const gradients = [input('g', 'float32', [2])]
    expect(clipGradients(gradients, {})).toBe(gradients)
    expect(clipGradients([], { globalClipNorm: 1 })).toEqual([])
  })

  test.each([{ clipNorm: 1 }, { globalClipNorm: 1 }])(
    '%j does not hide an infinite gradient',
    async clipping => {
      for (const value of [Infinity, Number.NaN]) {
        const [first] = await clipped(clipping, [hostTensor('float32', [2], [1, value])])
        expect(first).toEqual([Number.NaN, Number.NaN])
      }
    },
  )

  test('by value does not hide what is no number', async () => {
    const [first] = await clipped({ clipValue: 1 }, [hostTensor('float32', [2], [5, Number.NaN])])
    expect(first).toEqual([1, Number.NaN])
  })
})

describe('refused', () => {
  const both = 'only one of clipNorm, clipValue and globalClipNorm may be set, received'
  test.each<[string, object, string]>([
    ['SGD', { learningRate: -1 }, 'sgd: learningRate must be a number at least 0, received -1'],
    ['SGD', { learningRate: null }, 'sgd: learningRate must be a number at least 0, received null'],
    ['SGD', { momentum: 1.5 }, 'sgd: momentum must be a number between 0 and 1, received 1.5'],
    ['SGD', { nesterov: 'yes' }, 'sgd: nesterov must be true or false, received "yes"'],
    ['SGD', { weightDecay: -0.1 }, 'sgd: weightDecay must be a number at least 0, received -0.1'],
    ['SGD', { clipNorm: 1, clipValue: 2 }, `sgd: ${both} clipNorm and clipValue`],
    ['Adam', { clipNorm: 1, globalClipNorm: 2 }, `adam: ${both} clipNorm and globalClipNorm`],
    ['Adam', { clipValue: 0 }, 'adam: clipValue must be a number above 0, received 0'],
    ['Adam', { beta1: 1 }, 'adam: beta1 must be a number of at least 0 and below 1, received 1'],
    ['Adam', { epsilon: 0 }, 'adam: epsilon must be a number above 0, received 0'],
    ['Adam', { amsgrad: 1 }, 'adam: amsgrad must be true or false, received 1'],
    ['AdamW', { beta2: -0.1 }, 'adamW: beta2 must be a number of at least 0 and below 1, received -0.1'],
    ['AdamW', { amsgrad: 0 }, 'adamW: amsgrad must be true or false, received 0'],
    ['Nadam', { beta2: 2 }, 'nadam: beta2 must be a number of at least 0 and below 1, received 2'],
    ['Nadam', { epsilon: -1 }, 'nadam: epsilon must be a number above 0, received -1'],
    ['RMSprop', { rho: 1 }, 'rmsprop: rho must be a number of at least 0 and below 1, received 1'],
    ['RMSprop', { momentum: -1 }, 'rmsprop: momentum must be a number between 0 and 1, received -1'],
    ['RMSprop', { epsilon: 0 }, 'rmsprop: epsilon must be a number above 0, received 0'],
    ['RMSprop', { centered: 2 }, 'rmsprop: centered must be true or false, received 2'],
    [
      'Adagrad',
      { initialAccumulatorValue: -1 },
      'adagrad: initialAccumulatorValue must be a number at least 0, received -1',
    ],
    ['Adagrad', { epsilon: 0 }, 'adagrad: epsilon must be a number above 0, received 0'],
    [
      'SGD',
      { lr: 0.1 },
      'unknown option of sgd "lr"; known: learningRate, momentum, nesterov, weightDecay, clipNorm, clipValue, globalClipNorm',
    ],
  ])('%s %j', (kerasName, options, message) => {
    expect(() => factory(kerasName)(options)).toThrow(
      expect.objectContaining({ name: 'UsageError', message }),
    )
  })

  test('an unknown optimizer', () => {
    const unknown = { optimizer: 'adamw', learningRate: 1 } as unknown as optimizers.Optimizer
    expect(() => optimizerRule(unknown)).toThrow(
      'unknown optimizer "adamw"; did you mean "adamW"? known: sgd, rmsprop, adam, adamW, nadam, adagrad',
    )
  })

  test('two bounds at once, also where gradients are clipped', () => {
    expect(() => clipGradients([], { clipNorm: 1, clipValue: 1 })).toThrow(`clipGradients: ${both}`)
  })
})
