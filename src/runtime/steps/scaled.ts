/**
 * Products that multiply by a number what nodes multiplied before them: a pass less over pixels, which networks scale
 * and move. What was added after that is divided, and added before it.
 */
import { floatOf } from '../../onnx/attributes.ts'
import type { OnnxGraph, OnnxNode } from '../../onnx/model.ts'
import type { ValueType } from '../../onnx/shapes.ts'
import { hostTensor, sameShape, sizeOf } from '../../util/host-tensor.ts'

/** Numbers that leave enough of what float32 can hold: those between this and one through it. */
const MOST = 2 ** 20

/** What comes of a value that is multiplied, up to the products that read it. */
interface Flow {
  /** Reshapes, and sums with a number. */
  readonly between: Set<OnnxNode>
  /** Each as often as it reads the value. */
  readonly products: OnnxNode[]
}

/** The graph with such products; they round otherwise. */
export function withScales(graph: OnnxGraph, types: ReadonlyMap<string, ValueType>): OnnxGraph {
  const readers = Map.groupBy(
    graph.nodes.flatMap(node => node.inputs.map((name, at) => ({ name, node, at }))),
    ({ name }) => name,
  )
  const outputs = new Set(graph.outputs.map(({ name }) => name))
  const constants = new Map(graph.initializers.map(({ name, tensor }) => [name, tensor]))
  /** The number, where a node has a value, whose shape stays, and a number to compute with. */
  const numberOf = ({ inputs, outputs: [result] }: OnnxNode) => {
    const tensor = inputs.length === 2 ? constants.get(inputs[1]!) : undefined
    const isNumber = tensor?.dtype === 'float32' && sizeOf(tensor.shape) === 1
    const isKept = sameShape(types.get(inputs[0]!)!.shape, types.get(result!)!.shape)
    return isNumber && isKept ? Number(tensor.data[0]) : undefined
  }
  const isMatrix = (name: string) => types.get(name)!.shape.length === 2
  const follow = (value: string, flow: Flow): Flow | undefined => {
    const own = readers.get(value) ?? []
    if (own.length === 0 || outputs.has(value)) return undefined
    for (const { node, at } of own) {
      const { op, inputs, outputs: made } = node
      if ((op === 'MatMul' || op === 'Gemm') && at < 2 && inputs.slice(0, 2).every(isMatrix)) {
        flow.products.push(node)
        continue
      }
      const isBetween = at === 0 && (op === 'Reshape' || (op === 'Add' && numberOf(node) !== undefined))
      if (!isBetween || !follow(made[0]!, flow)) return undefined
      flow.between.add(node)
    }
    return flow
  }
  const changed = new Map<OnnxNode, OnnxNode>()
  const initializers = [...graph.initializers]
  /** What is read in place of products with a number. */
  const instead = new Map<string, string>()
  for (const node of graph.nodes) {
    const factor = node.op === 'Mul' ? numberOf(node) : undefined
    if (factor === undefined || !(Math.abs(factor) < MOST && Math.abs(factor) > 1 / MOST)) continue
    const flow = follow(node.outputs[0]!, { between: new Set(), products: [] })
    if (!flow) continue
    instead.set(node.outputs[0]!, node.inputs[0]!)
    for (const sum of flow.between) {
      if (sum.op !== 'Add') continue
      const name = `${sum.outputs[0]}/number`
      const { shape } = constants.get(sum.inputs[1]!)!
      initializers.push({ name, tensor: hostTensor('float32', shape, [numberOf(sum)! / factor]) })
      changed.set(sum, { ...sum, inputs: [sum.inputs[0]!, name] })
    }
    for (const product of flow.products) {
      const { attributes, ...others } = changed.get(product) ?? product
      const alpha = { float: Math.fround(floatOf(attributes.alpha, 1) * factor) }
      changed.set(product, { ...others, op: 'Gemm', attributes: { ...attributes, alpha } })
    }
  }
  if (instead.size === 0) return graph
  const nodes = graph.nodes.flatMap(node => {
    if (instead.has(node.outputs[0]!)) return []
    const known = changed.get(node) ?? node
    return { ...known, inputs: known.inputs.map(name => instead.get(name) ?? name) }
  })
  return { ...graph, nodes, initializers }
}
