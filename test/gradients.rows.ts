/** What a row of the gradient table is, and sample values for its inputs. */
import type { Tensor } from '../src/graph/node.ts'
import { type Shape, sizeOf } from '../src/util/host-tensor.ts'
import { key, normal as normalNumbers, permutation, uniform } from '../src/util/random.ts'

/** The values of one input; floats unless a dtype is given. */
export interface Sample {
  readonly shape: Shape
  readonly values: ArrayLike<number>
  readonly dtype?: 'int32' | 'uint32'
}

export interface Row {
  readonly label: string
  readonly inputs: readonly Sample[]
  /** The graph to check; a scalar is made of all its float outputs. */
  build(...inputs: Tensor[]): Tensor | readonly Tensor[]
  /** Check the gradient of the gradient, too. */
  readonly second?: true
  /** Outputs without a gradient on purpose: check values only. */
  readonly valuesOnly?: true
}

/** `none`: the op's own reason for having no gradient; its rows check values only. */
export type Entry = readonly Row[] | { readonly none: string; readonly rows: readonly Row[] }

let samples = 0
const nextKey = () => key(2024, 'gradients.table', samples++)

export const normal = (...shape: number[]): Sample => ({
  shape,
  values: normalNumbers(nextKey(), sizeOf(shape)),
})

/** Normal numbers, those within `margin` of a kink moved out of it. */
export function awayFrom(kinks: readonly number[], shape: readonly number[], margin = 0.05): Sample {
  const values = normal(...shape).values as Float64Array
  const moved = kinks.reduce(
    (xs, kink) => xs.map(x => (Math.abs(x - kink) < margin ? x + (x < kink ? -2 : 2) * margin : x)),
    values,
  )
  return { shape, values: moved }
}

export const positive = (...shape: number[]): Sample => ({
  shape,
  values: uniform(nextKey(), sizeOf(shape)).map(u => 0.3 + 2 * u),
})

/** Values at least 0.05 apart, around 0; `offset` keeps two such tensors apart from one another. */
export const distinct = (shape: readonly number[], offset = 0): Sample => ({
  shape,
  values: Array.from(
    permutation(nextKey(), sizeOf(shape)),
    i => (i - Math.floor(sizeOf(shape) / 2)) * 0.05 + offset,
  ),
})

export const integers = (shape: readonly number[], values: readonly number[]): Sample => ({
  shape,
  values,
  dtype: 'int32',
})

export const row = (label: string, inputs: readonly Sample[], build: Row['build']): Row => ({
  label,
  inputs,
  build,
})
export const smooth = (label: string, inputs: readonly Sample[], build: Row['build']): Row => ({
  ...row(label, inputs, build),
  second: true,
})
