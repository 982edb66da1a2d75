/** What nodes cost, by their shapes alone: no clock, and the same figures on every machine. */
import { FoveaError } from '../util/errors.ts'
import { bytesPerElement, type Shape, sizeOf } from '../util/host-tensor.ts'
import type { OnnxModel } from './model.ts'
import { type TypedNode, typedNodes, type ValueType, valuesOf } from './shapes.ts'

export interface Cost {
  /** Of matrix products and convolutions; other arithmetic is not counted. */
  readonly multiplyAdds: number
  /** Read and written, wherever they are: in a cache or in memory. */
  readonly bytes: number
}

/** What a step of a program costs, as the program was written. ONNX Runtime fuses some of its nodes. */
export interface StepCost extends Cost {
  readonly nodes: number
  /** Nodes of each operator, by its name. */
  readonly ops: Readonly<Record<string, number>>
}

/** [..., M, K] times [..., K, N], whichever of the two is transposed: both hold M and K, and the result says M. */
function ofProduct([a = []]: readonly Shape[], y: Shape): number {
  const matrix = sizeOf(a.slice(-2))
  const rows = a.length > 1 ? y.at(-2)! : 1
  return rows === 0 ? 0 : (sizeOf(y) * matrix) / rows
}

/** Of [K, C / groups, kH, kW], each output sums over all but the first axis. */
const ofConvolution = ([, w = []]: readonly Shape[], y: Shape) => sizeOf(y) * sizeOf(w.slice(1))

/** Operators by their names in ONNX and in ONNX Runtime, whose fused ones add what follows a product. */
const products: Readonly<Record<string, (inputs: readonly Shape[], y: Shape) => number>> = {
  MatMul: ofProduct,
  Gemm: ofProduct,
  FusedMatMul: ofProduct,
  FusedGemm: ofProduct,
  Conv: ofConvolution,
  FusedConv: ofConvolution,
}

/** The same memory under another shape. */
const views = new Set(['Reshape', 'Flatten', 'Squeeze', 'Unsqueeze'])

/** Read only as much of their first input as they give. */
const selections = new Set(['Gather', 'GatherElements', 'Slice'])

/** What one node costs, given the types of what it reads and gives. */
export function costOfNode(op: string, inputs: readonly ValueType[], outputs: readonly ValueType[]): Cost {
  const shapes = inputs.map(({ shape }) => shape)
  const multiplyAdds = products[op]?.(shapes, outputs[0]!.shape) ?? 0
  if (views.has(op)) return { multiplyAdds, bytes: 0 }
  const read = selections.has(op) ? [...outputs, ...inputs.slice(1)] : inputs
  const bytes = [...read, ...outputs].reduce(
    (sum, { dtype, shape }) => sum + sizeOf(shape) * bytesPerElement[dtype],
    0,
  )
  return { multiplyAdds, bytes }
}

/**
 * The nodes of a step of a program: of the body of its `Loop`.
 *
 * @throws FoveaError where the model has no `Loop`, or an operator whose shapes are not known
 */
export function stepNodes({ graph }: OnnxModel): TypedNode[] {
  const loop = graph.nodes.find(({ op }) => op === 'Loop')
  const body = loop?.attributes.body
  if (!body || !('graph' in body))
    throw new FoveaError(`${graph.name}: expected a Loop over steps, received none`)
  // How many rows the data has, and how many steps a call makes, changes nothing in a step.
  return typedNodes(body.graph, {}, valuesOf(graph, { rows: 1, steps: 1 }))
}

/** What a step of a program costs. Throws as {@link stepNodes}. */
export function stepCost(model: OnnxModel): StepCost {
  const nodes = stepNodes(model)
  const ops: Record<string, number> = {}
  let [multiplyAdds, bytes] = [0, 0]
  for (const { node, inputs, outputs } of nodes) {
    const cost = costOfNode(node.op, inputs, outputs)
    multiplyAdds += cost.multiplyAdds
    bytes += cost.bytes
    ops[node.op] = (ops[node.op] ?? 0) + 1
  }
  const sorted = Object.entries(ops).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return { nodes: nodes.length, multiplyAdds, bytes, ops: Object.fromEntries(sorted) }
}
