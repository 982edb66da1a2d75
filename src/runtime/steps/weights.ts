/** Products of a constant matrix and a value, as kernels see them. */
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
  const others = Object.entries(attributes).filter(([name]) => name !== 'transA' && name !== 'alpha')
  const isNone = (attribute: (typeof others)[number][1]) => 'int' in attribute && attribute.int === 0
  const { alpha, transA } = attributes
  const isScaled = alpha && !('float' in alpha && alpha.float === 1)
  if (matrix?.shape.length !== 2 || inputs.length > 2 || isScaled) return undefined
  if (others.some(([, attribute]) => !isNone(attribute))) return undefined
  const before = known.get(node)
  if (before) return before
  const [m, n] = matrix.shape as [number, number]
  const numbers = toNumbers(matrix)
  const isTransposed = transA !== undefined && 'int' in transA && transA.int === 1
  const weights = isTransposed
    ? { rows: n, columns: m, values: numbers.map((_, i) => numbers[(i % m) * n + Math.floor(i / m)]!) }
    : { rows: m, columns: n, values: numbers }
  known.set(node, weights)
  return weights
}
