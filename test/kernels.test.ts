/** Kernels as threads run them, in the memory that they share. */
import { describe, expect, test } from 'vitest'
import { LANES } from '../src/runtime/steps/access.ts'
import { kernelModule } from '../src/runtime/steps/code.ts'
import type { Kernel, KernelStep } from '../src/runtime/steps/kernel.ts'
import { StepMemory } from '../src/runtime/steps/memory.ts'
import { controlOf, isOpen, MOST_PIECES, Runnable, setClaims, slots } from '../src/runtime/steps/share.ts'
import { Team } from '../src/runtime/steps/team.ts'

describe('kernels', () => {
  const memory = new StepMemory()
  const team = new Team(memory, 3)
  let kernels = 0
  const each = { offset: 0, strides: [LANES], lanes: 1 }

  const updating = (tensor: string, size: number, steps: KernelStep[]): Kernel => ({
    name: tensor,
    loops: [Math.ceil(size / LANES)],
    steps,
    stores: [{ tensor, at: each, step: steps.length - 1 }],
    sums: [],
    updates: true,
  })

  /** x -> x * 1, over some threads. */
  function timesOne(values: Float32Array): Float32Array {
    const name = `values ${++kernels}`
    const at = memory.place(name, values.byteLength)
    memory.floats(at, values.length).set(values)
    const kernel = updating(name, values.length, [
      { op: 'Mul', operands: [{ tensor: name, at: each }, { constant: 1 }] },
    ])
    team
      .load(
        kernelModule([kernel], () => at, true),
        [[kernel]],
      )
      .run(0, 1)
    return memory.floats(at, values.length).slice()
  }

  test('numbers too small to be normal become zero; what is not finite stays', () => {
    const [tiny, least] = [2 ** -127, 2 ** -126]
    const values = [1, -tiny, tiny, least, -least, Number.NaN, Infinity, -Infinity, 0, -0]
    const expected = [1, 0, 0, least, -least, Number.NaN, Infinity, -Infinity, 0, 0]
    // Enough for all threads.
    const repeated = (some: readonly number[]) => new Array<readonly number[]>(9_000).fill(some).flat()
    expect([...timesOne(Float32Array.from(repeated(values)))]).toEqual(repeated(expected))
  })

  test('where processors see to numbers too small to be normal, kernels do not', () => {
    const lengthOf = (flushes: boolean) =>
      kernelModule([updating('x', 4, [{ op: 'Identity', operands: [{ constant: 1 }] }])], () => 128, flushes)
        .length
    expect(lengthOf(false)).toBeLessThan(lengthOf(true))
  })

  test('each value is computed once, however many there are and whoever does it', () => {
    for (const length of [1, 3, 5, 16, 49_999, 50_001, 200_003]) {
      const at = memory.place(`count ${length}`, 4 * length)
      const kernel = updating('x', length, [
        { op: 'Add', operands: [{ tensor: 'x', at: each }, { constant: 1 }] },
      ])
      const program = team.load(
        kernelModule([kernel], () => at, true),
        [[kernel]],
      )
      for (let i = 0; i < 10; i++) program.run(0, 1)
      expect(new Set(memory.floats(at, length)), String(length)).toEqual(new Set([10]))
    }
  })

  test('a helper that comes late takes nothing of the next turn', () => {
    const control = controlOf(3)
    const calls: number[] = []
    const size = { turns: 100, work: 1e6, stage: 0 }
    const program = new Runnable([() => calls.push(0)], [size], 3)
    // Turn 7 is over, and turn 8 is being made of kernels that this program has not got.
    setClaims(control, 7, MOST_PIECES)
    expect(isOpen(control, 7)).toBe(false)
    setClaims(control, 8, 0)
    expect(isOpen(control, 7)).toBe(false)
    expect(isOpen(control, 8)).toBe(true)
    program.runShare(control, 7, 1, 0, 1)
    expect(calls).toEqual([])
    program.runShare(control, 8, 1, 0, 1)
    expect(calls.length).toBe(program.count(0, 1))
    expect(Atomics.load(control, slots.done)).toBe(calls.length)
  })

  test('stages follow one another, however many threads share them', () => {
    const length = 80_000
    const [x, y] = ['x', 'y'].map(name => memory.place(`stage ${name}`, 4 * length)) as [number, number]
    memory.floats(x, length).fill(1)
    const pass = (from: string, to: string): Kernel => ({
      ...updating(to, length, [{ op: 'Add', operands: [{ tensor: from, at: each }, { constant: 1 }] }]),
      updates: false,
    })
    const stages = Array.from({ length: 40 }, (_, i) => [i % 2 === 0 ? pass('x', 'y') : pass('y', 'x')])
    const program = team.load(
      kernelModule(stages.flat(), name => (name === 'x' ? x : y), false),
      stages,
    )
    for (let i = 0; i < 20; i++) program.run(0, stages.length)
    expect(new Set(memory.floats(x, length))).toEqual(new Set([1 + 20 * 40]))
  })

  test('more than 4 GiB are refused', () => {
    expect(() => memory.place('huge', 5 * 2 ** 30)).toThrow(/expected at most 4 GiB, received \d+ bytes/)
  })
})
