/** Rows of constant weights, as kernels' loops go through them. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Access, NeedsLoops } from '../src/runtime/steps/access.ts'
import { termsOf, type Weights } from '../src/runtime/steps/weights.ts'

/** The matrix that loops read through terms, and how many bodies of code they need. */
function readBack(weights: Weights): { rows: number[][]; bodies: number } {
  const rows = Array.from({ length: weights.rows }, () => new Array<number>(weights.columns).fill(0))
  let bodies = 0
  const visit = (row: Access, loops: readonly number[]): void => {
    try {
      const terms = termsOf(weights, row, loops)
      // Loops go forwards: addresses of kernels have no sign.
      for (const { column } of terms) expect(Math.min(0, ...column.strides)).toBe(0)
      bodies++
      const turns = loops.reduce<number[][]>(
        (all, extent) => all.flatMap(turn => Array.from({ length: extent }, (_, i) => [...turn, i])),
        [[]],
      )
      const at = ({ offset, strides }: Access, turn: readonly number[]) =>
        turn.reduce((sum, index, loop) => sum + index * strides[loop]!, offset)
      for (const turn of turns)
        for (const { weight, column } of terms) rows[at(row, turn)]![at(column, turn)]! += weight
    } catch (error) {
      if (!(error instanceof NeedsLoops)) throw error
      for (const { loops: own, accesses } of error.changes(loops))
        for (const access of accesses(row)) visit(access, own)
    }
  }
  // Around the rows, as in a kernel, another loop: it is never without one.
  visit({ offset: 0, strides: [0, 1], lanes: 0 }, [1, weights.rows])
  return { rows, bodies }
}

const weightsOf = (rows: readonly (readonly number[])[]): Weights => ({
  rows: rows.length,
  columns: rows[0]!.length,
  values: rows.flat(),
})

/** A tile's transform, again and again: its rows are ordered (place, tile) or (tile, place). */
function tiled(
  tile: readonly (readonly number[])[],
  options: { tiles: number; step: number; before: number; columns: number; byPlace: boolean },
): number[][] {
  const { tiles, step, before, columns, byPlace } = options
  const row = (place: number, at: number) =>
    Array.from({ length: columns }, (_, column) => tile[place]![column - at * step + before] ?? 0)
  const places = tile.map((_, place) => place)
  const each = Array.from({ length: tiles }, (_, at) => at)
  return byPlace
    ? places.flatMap(place => each.map(at => row(place, at)))
    : each.flatMap(at => places.map(place => row(place, at)))
}

describe('rows of weights', () => {
  const extent = fc.integer({ min: 1, max: 6 })
  const small = fc.constantFrom(0, 0, 1, -1, 2, 0.5)

  test('of tiles: every weight once, whatever the edges cut off', () => {
    const options = fc.record({
      places: extent,
      width: extent,
      tiles: fc.integer({ min: 1, max: 9 }),
      step: fc.integer({ min: 1, max: 4 }),
      before: fc.nat(2),
      short: fc.nat(3),
      byPlace: fc.boolean(),
      values: fc.array(small, { minLength: 36, maxLength: 36 }),
    })
    fc.assert(
      fc.property(options, ({ places, width, tiles, step, before, short, byPlace, values }) => {
        const tile = Array.from({ length: places }, (_, i) => values.slice(6 * i, 6 * i + width))
        const columns = Math.max(1, (tiles - 1) * step + width - before - short)
        const rows = tiled(tile, { tiles, step, before, columns, byPlace })
        expect(readBack(weightsOf(rows)).rows).toEqual(rows)
      }),
      { numRuns: 300, seed: 3 },
    )
  })

  test('of a band, as many together as read the same values', () => {
    // 32 rows of five weights: four at the edges, and seven times four.
    const band = Array.from({ length: 32 }, (_, i) =>
      Array.from({ length: 32 }, (_, j) => (Math.abs(i - j) <= 2 ? 1 + Math.abs(i - j) : 0)),
    )
    const { rows, bodies } = readBack(weightsOf(band))
    expect(rows).toEqual(band)
    expect(bodies).toBe(4 + 4)
  })

  test('of any kind: every weight once', () => {
    fc.assert(
      fc.property(extent, extent, fc.array(small, { minLength: 36, maxLength: 36 }), (m, n, values) => {
        const rows = Array.from({ length: m }, (_, i) => values.slice(6 * i, 6 * i + n))
        expect(readBack(weightsOf(rows)).rows).toEqual(rows)
      }),
      { numRuns: 300, seed: 5 },
    )
  })

  test('one body for each place of a tile, and for what is different at the ends', () => {
    const tile = [
      [1, 2, 3],
      [5, 6, 0],
    ]
    const options = { tiles: 8, step: 2, before: 1, columns: 15 }
    const bodiesOf = (byPlace: boolean) => readBack(weightsOf(tiled(tile, { ...options, byPlace }))).bodies
    // The second place has a zero where the last tile is cut off: by itself it needs no code for that.
    expect(bodiesOf(true)).toBe(5)
    expect(bodiesOf(false)).toBe(6)
  })
})
