/**
 * Products whose left matrix is to be transposed: ONNX Runtime copies it, transposed, once for each 128 columns of the
 * right matrix. Where a kernel makes it, a kernel had better transpose it once.
 */
import { intOf } from '../../onnx/attributes.ts'
import type { OnnxGraph, OnnxNode } from '../../onnx/model.ts'
import { LANES } from './access.ts'
import { isMove } from './expression.ts'
import { isElementwise } from './kernel.ts'
import type { StepBody } from './step-body.ts'
import { isProduct } from './weights.ts'

/** Columns that ONNX Runtime takes at a time. */
export const COLUMNS = 128
/** Rows of the left matrix below which the product writes as long as it computes. */
const LEAST_ROWS = 64

/** The name of a matrix's transpose. */
export const turnedName = (name: string): string => `${name}/turned`

/** The left matrices that had better be transposed first. */
export function turnedFactors(body: StepBody): Set<string> {
  const isTurned = (node: OnnxNode) => {
    if (!isProduct(node) || intOf(node.attributes.transA, 0) === 0) return false
    const [left, right] = node.inputs.map(name => body.typeOf(name).shape)
    if (left!.length !== 2 || right!.length !== 2 || !isOfKernels(node.inputs[0]!, body)) return false
    const columns = right![intOf(node.attributes.transB, 0) === 1 ? 0 : 1]!
    return columns > COLUMNS && left![0]! >= LEAST_ROWS && left!.every(extent => extent % LANES === 0)
  }
  return new Set(body.nodes.filter(isTurned).map(({ inputs }) => inputs[0]!))
}

/** Whether kernels may make a value. */
function isOfKernels(name: string, body: StepBody): boolean {
  const producer = body.producerOf(body.baseOf(name))
  return producer !== undefined && (isElementwise(producer) || isMove(producer))
}

/** A step's graph in which nodes transpose these left matrices first. */
export function withTurned(graph: OnnxGraph, factors: ReadonlySet<string>): OnnxGraph {
  const known = new Set<string>()
  const nodes = graph.nodes.flatMap((node): OnnxNode[] => {
    const [left, ...others] = node.inputs
    const isTurned = isProduct(node) && intOf(node.attributes.transA, 0) === 1 && factors.has(left!)
    if (!isTurned) return [node]
    const turned = turnedName(left!)
    const product: OnnxNode = {
      ...node,
      inputs: [turned, ...others],
      attributes: { ...node.attributes, transA: { int: 0 } },
    }
    if (known.has(left!)) return [product]
    known.add(left!)
    const perm = { ints: [1, 0] }
    const name = node.name?.replace(/[^/]*$/, own => `Transpose of ${own}`)
    return [
      { op: 'Transpose', ...(name && { name }), inputs: [left!], outputs: [turned], attributes: { perm } },
      product,
    ]
  })
  return { ...graph, nodes }
}
