import { expect, test } from 'vitest'
import { equivalence, pairedDifference, studentQuantile } from '../src/stats/paired.ts'

// R 4.2: qt(1 - (1 - level) / 2, df)
test.each([
  [0.95, 1, 12.706204736],
  [0.95, 2, 4.30265273],
  [0.95, 3, 3.182446305],
  [0.95, 4, 2.776445105],
  [0.95, 9, 2.262157163],
  [0.95, 30, 2.042272456],
  [0.99, 5, 4.032142984],
  [0.9, 2, 2.91998558],
])('t of %d with %i degrees of freedom', (level, degrees, t) => {
  expect(studentQuantile(level, degrees)).toBeCloseTo(t, 7)
})

test('the mean difference of pairs with its interval', () => {
  // Student's own data (1908): hours of sleep gained by ten patients with two drugs; R: t.test(b, a, paired =
  // TRUE)
  const a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2]
  const b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
  const { n, mean, low, high } = pairedDifference(b, a)
  expect(n).toBe(10)
  expect(mean).toBeCloseTo(1.58, 12)
  expect(low).toBeCloseTo(0.7001142, 6)
  expect(high).toBeCloseTo(2.4598858, 6)
})

test('equivalent is what differs by less than the margin in both directions', () => {
  // Student's differences: R: t.test(b, a, paired = TRUE, conf.level = 0.9) gives 0.8669948 to 2.2930052
  const a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2]
  const b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
  const { difference, isEquivalent } = equivalence(b, a, 2.3)
  expect(difference.low).toBeCloseTo(0.8669947, 6)
  expect(difference.high).toBeCloseTo(2.2930053, 6)
  expect(isEquivalent).toBe(true)
  expect(equivalence(a, b, 2.3).isEquivalent).toBe(true)
  expect(equivalence(b, a, 2.29).isEquivalent).toBe(false)
  expect(equivalence(a, b, 2.29).isEquivalent).toBe(false)
})

test('one pair, or lists of different lengths, are refused', () => {
  expect(() => pairedDifference([1], [2])).toThrow('expected two pairs or more, received 1 and 1')
  expect(() => pairedDifference([1, 2, 3], [2, 3])).toThrow('received 3 and 2')
})
