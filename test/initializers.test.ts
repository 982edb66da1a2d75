/** Initializers: their distributions against Keras's, their determinism, and what they refuse. */
import { describe, expect, test } from 'vitest'
import * as initializers from '../src/nn/initializers.ts'
import { sizeOf } from '../src/util/host-tensor.ts'
import { key } from '../src/util/random.ts'
import golden from './golden/initializers.json' with { type: 'json' }

const { initialize, toInitializer } = initializers
type Factory = (options?: object) => initializers.Initializer
const lowered = (kerasName: string) => kerasName[0]!.toLowerCase() + kerasName.slice(1)
const named = (name: string) =>
  Object.entries(initializers).find(([exported]) => exported === name)![1] as unknown as Factory
const factory = (kerasName: string) => named(lowered(kerasName))

interface Theory {
  readonly distribution?: string
  readonly fanIn?: number
  readonly fanOut?: number
  readonly limit?: number
  readonly mean?: number
  readonly min?: number
  readonly max?: number
  readonly stddev?: number
  readonly value?: number
  readonly gain?: number
}

const names: readonly initializers.InitializerName[] = [
  'glorotUniform',
  'glorotNormal',
  'heUniform',
  'heNormal',
  'lecunUniform',
  'lecunNormal',
  'varianceScaling',
  'randomNormal',
  'truncatedNormal',
  'randomUniform',
  'orthogonal',
  'zeros',
  'ones',
  'constant',
]

/** Draws of one initializer under several keys, one after another. */
function draws(initializer: initializers.Initializer, shape: readonly number[], atLeast: number) {
  const each = sizeOf(shape)
  const values = new Float32Array(Math.ceil(atLeast / each) * each)
  for (let i = 0; i * each < values.length; i++)
    values.set(initialize(initializer, shape, key(7, 'test', i)), i * each)
  return values
}

function moments(values: Float32Array) {
  let sum = 0
  let least = Infinity
  let most = -Infinity
  for (const value of values) {
    sum += value
    least = Math.min(least, value)
    most = Math.max(most, value)
  }
  const mean = sum / values.length
  let squares = 0
  let fourths = 0
  for (const value of values) {
    squares += (value - mean) ** 2
    fourths += (value - mean) ** 4
  }
  const variance = squares / values.length
  return {
    mean,
    stddev: Math.sqrt(variance),
    kurtosis: fourths / values.length / variance ** 2,
    least,
    most,
  }
}

/** Kurtosis of each distribution; of a unit normal cut at ±2 by numerical integration. */
const kurtosis: Record<string, number> = { uniform: 1.8, untruncatedNormal: 3, truncatedNormal: 2.3655 }

const random = golden.cases.filter(({ theory }) => 'distribution' in theory)
describe.each(random)('$name', ({ initializer: kerasName, config, shape, theory, measured }) => {
  const { distribution, limit, mean, min = 0, max = 0, stddev } = theory as Theory
  const centre = mean ?? (min + max) / 2
  const values = draws(factory(kerasName)(config), shape, 200_000)
  const found = moments(values)

  test("has Keras's mean, deviation and form", () => {
    // Five standard errors: a right generator fails once in two million.
    const tolerance = (n: number) => (5 * stddev!) / Math.sqrt(n)
    expect(Math.abs(found.mean - centre)).toBeLessThan(tolerance(values.length))
    expect(Math.abs(found.mean - measured.mean)).toBeLessThan(
      tolerance(values.length) + tolerance(measured.n),
    )
    const form = kurtosis[distribution!]!
    const deviation = (n: number) => 5 * stddev! * Math.sqrt((form - 1) / (4 * n))
    expect(Math.abs(found.stddev - stddev!)).toBeLessThan(deviation(values.length))
    expect(Math.abs(found.stddev - measured.stddev)).toBeLessThan(
      deviation(values.length) + deviation(measured.n),
    )
    expect(Math.abs(found.kurtosis - form)).toBeLessThan(0.08)
  })

  test("reaches Keras's limits and stays within them", () => {
    const [least, most] = limit === undefined ? [min, max] : [-limit, limit]
    if (least === most) {
      // Unbounded: beyond three deviations, as a normal of so many values must be.
      expect(found.most - centre).toBeGreaterThan(3.5 * stddev!)
      expect(centre - found.least).toBeGreaterThan(3.5 * stddev!)
      return
    }
    // The golden limits have nine digits.
    const rounding = 1e-7 * Math.max(Math.abs(least), Math.abs(most))
    expect(found.least).toBeGreaterThanOrEqual(least - rounding)
    expect(found.most).toBeLessThanOrEqual(most + rounding)
    expect(found.least).toBeLessThan(least + 0.01 * (most - least))
    expect(found.most).toBeGreaterThan(most - 0.01 * (most - least))
  })
})

describe.each(golden.cases.filter(({ initializer }) => initializer === 'Orthogonal'))(
  '$name',
  ({ config, shape, theory }) => {
    test('has orthogonal columns of length gain', () => {
      const { gain } = theory as Theory
      const values = initialize(factory('Orthogonal')(config), shape, key(1, 'q'))
      expect(gramError(values, shape, gain!)).toBeLessThan(1e-6)
    })
  },
)

/**
 * The largest deviation of the columns' (or, of a wide matrix, the rows') products from gain² times the
 * identity.
 */
function gramError(values: Float32Array, shape: readonly number[], gain: number): number {
  const columns = shape.at(-1)!
  const rows = values.length / columns
  const tall = rows >= columns
  const at = (vector: number, i: number) =>
    tall ? values[i * columns + vector]! : values[vector * columns + i]!
  let worst = 0
  for (let a = 0; a < Math.min(rows, columns); a++)
    for (let b = 0; b <= a; b++) {
      let product = 0
      for (let i = 0; i < Math.max(rows, columns); i++) product += at(a, i) * at(b, i)
      worst = Math.max(worst, Math.abs(product - (a === b ? gain * gain : 0)))
    }
  return worst
}

describe('orthogonal', () => {
  test.each([[[3, 5]], [[2, 2, 2, 12]], [[6, 6]], [[1, 4]]])('of shape %j', shape => {
    const values = initialize(initializers.orthogonal(), shape, key(3, 'q'))
    expect(gramError(values, shape, 1)).toBeLessThan(1e-6)
  })

  test('is uniform: a 1 x 1 matrix is 1 or -1, each half of the time', () => {
    let positive = 0
    for (let i = 0; i < 400; i++) {
      const [value] = initialize(initializers.orthogonal(), [1, 1], key(i, 'q'))
      expect(Math.abs(value!)).toBe(1)
      if (value! > 0) positive++
    }
    expect(Math.abs(positive - 200)).toBeLessThan(50)
  })

  test('needs two axes', () => {
    expect(() => initialize(initializers.orthogonal(), [4], key(1))).toThrow(
      'orthogonal: expected a shape of at least two axes, received [4]',
    )
  })
})

describe.each(golden.cases.filter(({ theory }) => 'value' in theory))(
  '$name',
  ({ initializer: kerasName, config, shape, theory }) => {
    test('is that value everywhere', () => {
      const values = initialize(factory(kerasName)(config), shape, key(1))
      expect(values.length).toBe(sizeOf(shape))
      expect(values.every(value => value === (theory as Theory).value)).toBe(true)
    })
  },
)

describe('fans', () => {
  const cases = golden.cases.filter(({ theory }) => 'fanIn' in theory)
  test.each(cases)("$name has Keras's", ({ shape, theory }) => {
    const { fanIn, fanOut } = theory as Theory
    expect(initializers.fansOf(shape)).toEqual({ fanIn, fanOut })
  })

  test('of vectors and scalars', () => {
    expect(initializers.fansOf([5])).toEqual({ fanIn: 5, fanOut: 5 })
    expect(initializers.fansOf([])).toEqual({ fanIn: 1, fanOut: 1 })
  })

  test('that are given override those of the shape, and scale the same numbers', () => {
    const dense = initialize(initializers.heNormal(), [64, 8], key(1))
    const sparse = initialize(initializers.heNormal(), [64, 8], key(1), { fanIn: 16, fanOut: 2 })
    for (const [i, value] of sparse.entries()) expect(value).toBeCloseTo(2 * dense[i]!, 6)
  })

  test('below 1 count as 1, as in Keras', () => {
    const none = initialize(initializers.lecunUniform(), [4, 4], key(1), { fanIn: 0, fanOut: 4 })
    const one = initialize(initializers.lecunUniform(), [4, 4], key(1), { fanIn: 1, fanOut: 4 })
    expect(none).toEqual(one)
  })
})

describe.each(names.filter(name => !['zeros', 'ones', 'constant'].includes(name)))('%s', name => {
  const initializer = toInitializer(name)

  test('gives the same values for the same key, others for another', () => {
    const first = initialize(initializer, [8, 8], key(1, 'init', 'a'))
    expect(initialize(initializer, [8, 8], key(1, 'init', 'a'))).toEqual(first)
    for (const other of [key(2, 'init', 'a'), key(1, 'init', 'b')]) {
      const values = initialize(initializer, [8, 8], other)
      expect(values.filter((value, i) => value === first[i])).toHaveLength(0)
    }
  })

  test('gives different values to different elements', () => {
    expect(new Set(initialize(initializer, [8, 8], key(1))).size).toBe(64)
  })
})

describe.each(names)('%s', name => {
  const initializer = toInitializer(name)

  test('has a golden row', () => {
    expect(golden.cases.map(row => lowered(row.initializer))).toContain(name)
  })

  test('is a frozen description that survives JSON', () => {
    expect(Object.isFrozen(initializer)).toBe(true)
    expect(toInitializer(JSON.parse(JSON.stringify(initializer)))).toEqual(initializer)
    expect(named(name)()).toEqual(initializer)
  })

  test("has Keras's defaults", () => {
    const keras = Object.entries(golden.defaults).find(([kerasName]) => lowered(kerasName) === name)![1]
    const { initializer: _, ...options } = initializer
    const camel = (value: unknown) =>
      typeof value === 'string' ? value.replace(/_(.)/g, (_match, c: string) => c.toUpperCase()) : value
    const expected = Object.entries(keras)
      .filter(([, value]) => value !== null)
      .map(([option, value]) => [option, camel(value)])
    expect(options).toEqual(Object.fromEntries(expected))
  })
})

test.each<[string, object, string]>([
  ['VarianceScaling', { scale: 0 }, 'varianceScaling: scale must be a number above 0, received 0'],
  [
    'VarianceScaling',
    { mode: 'fan_in' },
    'unknown mode of varianceScaling "fan_in"; did you mean "fanIn"? known: fanIn, fanOut, fanAvg',
  ],
  [
    'VarianceScaling',
    { distribution: 'gamma' },
    'unknown distribution of varianceScaling "gamma"; known: truncatedNormal, untruncatedNormal, uniform',
  ],
  ['RandomNormal', { stddev: -1 }, 'randomNormal: stddev must be a number at least 0, received -1'],
  ['TruncatedNormal', { mean: 'x' }, 'truncatedNormal: mean must be a number, received "x"'],
  [
    'RandomUniform',
    { minval: 1 },
    'randomUniform: minval must not exceed maxval, received minval 1 and maxval 0.05',
  ],
  [
    'RandomNormal',
    { std: 1 },
    'unknown option of randomNormal "std"; did you mean "stddev"? known: mean, stddev',
  ],
  ['Orthogonal', { gain: Number.NaN }, 'orthogonal: gain must be a number, received NaN'],
  ['Constant', { value: null }, 'constant: value must be a number, received null'],
])('%s %j is refused', (name, options, message) => {
  expect(() => factory(name)(options)).toThrow(expect.objectContaining({ name: 'UsageError', message }))
})

test('an unknown name is refused with the nearest one', () => {
  expect(() => toInitializer('heNormel' as 'heNormal')).toThrow(
    'unknown initializer "heNormel"; did you mean "heNormal"? known: glorotUniform, glorotNormal, heUniform',
  )
  expect(() => toInitializer('toString' as 'ones')).toThrow('unknown initializer "toString"; ')
  expect(() => toInitializer({ initializer: 'zeros', value: 2 } as initializers.Initializer)).toThrow(
    'unknown option of zeros "value"',
  )
})
