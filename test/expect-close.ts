import { expect } from 'vitest'
import type { Values } from './reference.ts'

/**
 * Asserts that all values agree within `tolerance` times the largest expected value, or times 1 where it is
 * below.
 */
export function expectClose(actual: Values, expected: Values, tolerance: number, what: string): void {
  expect(actual.shape, what).toEqual(expected.shape)
  const scale = expected.data.reduce((most, x) => Math.max(most, Math.abs(x)), 1)
  for (const [i, x] of expected.data.entries())
    if (!(Math.abs(actual.data[i]! - x) <= tolerance * scale))
      expect.fail(`${what}: value ${i} is ${actual.data[i]}, expected ${x} within ${tolerance * scale}`)
}
