/** Products of a constant matrix and a value, as kernels see them. */
import { floatOf, intOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { toNumbers } from '../../util/host-tensor.ts'
import type { StepBody } from './step-body.ts'

const products: ReadonlySet<string> = new Set(['MatMul', 'FusedMatMul', 'Gemm'])

export const isProduct = ({ op }: OnnxNode): boolean => products.has(op)

/** Row by row. */
export interface Weights {
  readonly rows: number
  readonly columns: number
  readonly values: readonly number[]
}

const known = new WeakMap<OnnxNode, Weights>()

/** The matrix on the left of a product; undefined where it is no constant, or the product does more. */
export function weightsOf(node: OnnxNode, body: StepBody): Weights | undefined {
  const { inputs, attributes } = node
  const matrix = body.constant(inputs[0]!)
  const { alpha, transA, ...others } = attributes
  const isPlain = floatOf(alpha, 1) === 1 && Object.values(others).every(other => intOf(other, 1) === 0)
  if (matrix?.shape.length !== 2 || inputs.length > 2 || !isPlain) return undefined
  const before = known.get(node)
  if (before) return before
  const [m, n] = matrix.shape as [number, number]
  const numbers = toNumbers(matrix)
  const weights = intOf(transA, 0)
    ? { rows: n, columns: m, values: numbers.map((_, i) => numbers[(i % m) * n + Math.floor(i / m)]!) }
    : { rows: m, columns: n, values: numbers }
  known.set(node, weights)
  return weights
}
