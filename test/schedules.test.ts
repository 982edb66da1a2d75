/** Learning-rate schedules against Keras's. */
import { describe, expect, test } from 'vitest'
import * as schedules from '../src/nn/schedules.ts'
import golden from './golden/schedules.json' with { type: 'json' }

const { learningRateAt } = schedules
type Factory = (options: object) => schedules.Schedule

/** Keras's class name in lower camel case is our function's. */
function factory(kerasName: string): Factory {
  const name = kerasName[0]!.toLowerCase() + kerasName.slice(1)
  return Object.entries(schedules).find(([exported]) => exported === name)![1] as Factory
}

const names: readonly schedules.ScheduleName[] = [
  'exponentialDecay',
  'inverseTimeDecay',
  'piecewiseConstantDecay',
  'polynomialDecay',
  'cosineDecay',
  'cosineDecayRestarts',
]

describe.each(golden.cases)('$name', ({ schedule: kerasName, config, kerasConfig, values }) => {
  const schedule = factory(kerasName)(config)

  test('has the rates of Keras', () => {
    for (const [step, expected] of values.entries()) {
      const rate = learningRateAt(schedule, step)
      expect(Math.abs(rate - expected), `step ${step}: ${rate}, Keras ${expected}`).toBeLessThan(1e-9)
    }
  })

  test('has the options and defaults of Keras', () => {
    const { schedule: name, ...options } = schedule
    expect(names).toContain(name)
    // An option without a value is absent here and null there.
    expect(options).toEqual(
      Object.fromEntries(Object.entries(kerasConfig).filter(([, value]) => value !== null)),
    )
  })

  test('is a frozen description that survives JSON', () => {
    expect(Object.isFrozen(schedule)).toBe(true)
    const read = JSON.parse(JSON.stringify(schedule))
    expect(schedules.toLearningRate('sgd', read)).toEqual(schedule)
  })
})

test.each(names)('%s has a golden row', name => {
  expect(golden.cases.map(({ schedule }) => schedule[0]!.toLowerCase() + schedule.slice(1))).toContain(name)
})

test('a constant rate is the same at every step', () => {
  expect([0, 1, 1000].map(step => learningRateAt(0.3, step))).toEqual([0.3, 0.3, 0.3])
})

test('restarts begin exactly at their step, where a logarithm would round to the period before', () => {
  // floor(log(1000) / log(10)) is 2 in float64.
  const schedule = schedules.cosineDecayRestarts({ initialLearningRate: 1, firstDecaySteps: 1, tMul: 10 })
  for (const step of [0, 1, 11, 111, 1111]) expect(learningRateAt(schedule, step)).toBe(1)
})

test('boundaries given to a schedule are its own', () => {
  const boundaries = [10]
  const schedule = schedules.piecewiseConstantDecay({ boundaries, values: [1, 0.5] })
  boundaries[0] = 1
  expect(learningRateAt(schedule, 5)).toBe(1)
})

const rate = { initialLearningRate: 0.1, decaySteps: 10 }
test.each<[string, object, string]>([
  [
    'ExponentialDecay',
    { ...rate, decayRate: 0.5, decaySteps: 0 },
    'exponentialDecay: decaySteps must be a number above 0, received 0',
  ],
  ['ExponentialDecay', rate, 'exponentialDecay: decayRate must be a number at least 0, received undefined'],
  [
    'InverseTimeDecay',
    { ...rate, decayRate: 0.5, initialLearningRate: -1 },
    'inverseTimeDecay: initialLearningRate must be a number at least 0, received -1',
  ],
  [
    'InverseTimeDecay',
    { ...rate, decayRate: 0.5, staircase: 1 },
    'inverseTimeDecay: staircase must be true or false, received 1',
  ],
  ['PolynomialDecay', { ...rate, power: 0 }, 'polynomialDecay: power must be a number above 0, received 0'],
  [
    'PolynomialDecay',
    { ...rate, endLearningRate: -0.1 },
    'polynomialDecay: endLearningRate must be a number at least 0, received -0.1',
  ],
  [
    'PolynomialDecay',
    { ...rate, cycle: 'yes' },
    'polynomialDecay: cycle must be true or false, received "yes"',
  ],
  [
    'CosineDecay',
    { ...rate, warmupSteps: 5 },
    'cosineDecay: warmupSteps needs the rate that the warm-up ends at: set warmupTarget, received warmupSteps 5 alone',
  ],
  [
    'CosineDecay',
    { ...rate, alpah: 0.1 },
    'unknown option of cosineDecay "alpah"; did you mean "alpha"? known: alpha, warmupSteps, initialLearningRate, decaySteps, warmupTarget',
  ],
  [
    'CosineDecayRestarts',
    { initialLearningRate: 1, firstDecaySteps: 5, tMul: 0.5 },
    'cosineDecayRestarts: tMul must be a number at least 1, received 0.5',
  ],
  [
    'CosineDecayRestarts',
    { initialLearningRate: 1, firstDecaySteps: 0 },
    'cosineDecayRestarts: firstDecaySteps must be a number above 0, received 0',
  ],
  [
    'PiecewiseConstantDecay',
    { boundaries: [1, 2], values: [1, 2] },
    'piecewiseConstantDecay: expected one more value than boundaries, received 2 boundaries and 2 values',
  ],
  [
    'PiecewiseConstantDecay',
    { boundaries: [5, 5], values: [1, 2, 3] },
    'piecewiseConstantDecay: boundaries must ascend, received [5, 5]',
  ],
  [
    'PiecewiseConstantDecay',
    { boundaries: ['a'], values: [1, 2] },
    'piecewiseConstantDecay: boundaries must be a number, received "a"',
  ],
  [
    'PiecewiseConstantDecay',
    { values: [1] },
    'piecewiseConstantDecay: boundaries and values must be arrays of numbers',
  ],
])('%s %j is refused', (name, options, message) => {
  expect(() => factory(name)(options)).toThrow(expect.objectContaining({ name: 'UsageError', message }))
})

test('an unknown schedule is refused', () => {
  const unknown = { schedule: 'cosineDecai', ...rate } as unknown as schedules.Schedule
  expect(() => schedules.toLearningRate('adam', unknown)).toThrow(
    'unknown schedule "cosineDecai"; did you mean "cosineDecay"? known: ',
  )
})
