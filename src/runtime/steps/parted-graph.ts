/** Graphs that are run part by part. */
import { costOfNode } from '../../onnx/cost.ts'
import type { OnnxGraph, OnnxNode, ValueInfo } from '../../onnx/model.ts'
import type { ValueType } from '../../onnx/shapes.ts'
import { type HostTensor, hostTensor, type Shape } from '../../util/host-tensor.ts'
import { partsOf } from './partial-sums.ts'
import type { Role } from './roles.ts'
import type { StepBody } from './step-body.ts'
import { isProduct } from './weights.ts'

/** A graph that is run part by part. */
export interface PartedGraph {
  readonly name: string
  /** The operator of the node that it is named after. */
  readonly op: string
  readonly parts: number
  /** Of one part. */
  readonly graph: OnnxGraph
  /** Of each input and output of the graph. */
  readonly inputs: readonly (PartedValue | PartedNumber)[]
  readonly outputs: readonly PartedValue[]
  /** What the first node reads, for all parts: where nodes are measured, there is one. */
  readonly operands: readonly ValueType[]
  /** As {@link workOf} counts it. */
  readonly work: number
}

/** Where a value of a part lies. */
export interface PartedValue {
  readonly tensor: string
  /** Whether each part reads all of it. */
  readonly isWhole: boolean
}

/** A whole number that each part has of its own. */
export interface PartedNumber {
  readonly numbers: readonly number[]
}

/** Multiply-adds that a processor does in the time of an operation on vectors. */
const PRODUCTS_PER_OPERATION = 16
/** What a node takes beside its own operations: half a microsecond. */
export const NODE_OPERATIONS = 2_000

export const multiplyAddsOf = ({ op, inputs, outputs }: OnnxNode, body: StepBody): number => {
  const typesOf = (names: readonly string[]) => names.map(name => body.typeOf(name))
  return costOfNode(op, typesOf(inputs), typesOf(outputs)).multiplyAdds
}

/** Operations on vectors, as a task's work counts them, of all of these nodes. */
export const sumOfOperations = (nodes: readonly OnnxNode[], body: StepBody): number =>
  nodes.reduce((sum, node) => sum + operationsOf(node, body), 0)

/** Operations on vectors, as a task's work counts them. */
export function operationsOf(node: OnnxNode, body: StepBody): number {
  const counted = isReduction(node) ? node.inputs.slice(0, 1) : node.outputs.filter(name => name !== '')
  const values = counted.reduce((sum, name) => sum + body.sizeOf(name), 0)
  return multiplyAddsOf(node, body) / PRODUCTS_PER_OPERATION + values
}

const isReduction = ({ op }: OnnxNode): boolean => op.startsWith('Reduce') || op === 'ArgMax'

/** How some nodes run in parts. */
export interface Partition {
  readonly parts: number
  /** Of each node; in a single part each input is one. */
  readonly rolesOf: (node: OnnxNode) => readonly Role[]
  /** Nodes of whose values each part makes sums of its own: see partial-sums.ts; none by default. */
  readonly sums?: { has(node: OnnxNode): boolean }
}

/** The graph of one part of some nodes, in their order. `isRead`: whether a value is read beyond them. */
export function partedGraph(
  body: StepBody,
  nodes: readonly OnnxNode[],
  partition: Partition,
  isRead: (name: string) => boolean,
): PartedGraph {
  const { parts } = partition
  const part = new Part(body, nodes, partition)
  const outputs = nodes.flatMap(node => node.outputs).filter(isRead)
  const inputs = [...part.inputs.values()]
  const main = nodes.find(isProduct) ?? nodes[0]!
  return {
    name: main.name ?? '',
    op: main.op,
    parts,
    graph: {
      name: 'part',
      nodes: part.nodes,
      initializers: [...part.initializers].map(([name, tensor]) => ({ name, tensor })),
      inputs: inputs.map(({ info }) => info),
      outputs: outputs.map(name => part.outputOf(name)),
    },
    inputs: inputs.map(({ value }) => value),
    outputs: outputs.map(name => ({ tensor: part.isSum(name) ? partsOf(name) : name, isWhole: false })),
    operands: nodes[0]!.inputs.filter(name => name !== '').map(name => body.typeOf(name)),
    work: Math.round(sumOfOperations(nodes, body) + part.nodes.length * parts * NODE_OPERATIONS),
  }
}

interface PartInput {
  readonly value: PartedValue | PartedNumber
  readonly info: ValueInfo
}

class Part {
  readonly nodes: OnnxNode[] = []
  readonly initializers = new Map<string, HostTensor>()
  readonly inputs = new Map<string, PartInput>()
  readonly #body: StepBody
  readonly #own: ReadonlySet<OnnxNode>
  readonly #parts: number
  readonly #sums: NonNullable<Partition['sums']>
  /** What is an input, a constant or a value of nodes already. */
  readonly #known = new Set<string>()

  constructor(body: StepBody, nodes: readonly OnnxNode[], { parts, rolesOf, sums }: Partition) {
    this.#body = body
    this.#own = new Set(nodes)
    this.#parts = parts
    this.#sums = sums ?? new Set()
    for (const node of nodes) {
      const roles = rolesOf(node)
      const inputs = node.inputs.map((name, i) => (name === '' ? '' : this.#named(name, roles[i]!)))
      this.nodes.push({ ...node, inputs, outputs: node.outputs.map(name => name && partOf(name)) })
    }
  }

  outputOf(name: string): ValueInfo {
    const { dtype, shape } = this.#body.typeOf(name)
    return { name: partOf(name), dtype, shape: this.isSum(name) ? shape : shapeOfPart(shape, this.#parts) }
  }

  /** Whether each part makes a sum of its own. */
  isSum(name: string): boolean {
    const producer = this.#body.producerOf(this.#body.baseOf(name))
    return producer !== undefined && this.#sums.has(producer)
  }

  /** A value as the part's nodes read it. */
  #named(name: string, role: Role): string {
    const known = role === 'whole' ? name : `${name}/${role}`
    if (this.#known.has(known)) return known
    this.#known.add(known)
    const base = this.#body.baseOf(name)
    const { dtype, shape } = this.#body.typeOf(name)
    const constant = this.#body.constant(name)
    const producer = this.#body.producerOf(base)
    const isSum = this.isSum(base)
    const own = role === 'whole' || isSum ? shape : shapeOfPart(shape, this.#parts)
    if (constant) this.initializers.set(known, partOfConstant(constant, role, this.#parts))
    else if (producer && this.#own.has(producer)) {
      if (role !== 'part') throw new Error(`${base}: made in parts, and read otherwise`)
      if (base !== name) this.#reshape(partOf(base), own, known)
    } else if (role === 'columns') {
      const [, columns] = shape as [number, number]
      this.#slice(this.#named(name, 'whole'), 1, columns, known)
    } else {
      const tensor = isSum ? partsOf(base) : base
      const info = { name: known, dtype, shape: this.#body.shapeOfData(base) ?? own }
      this.#input({ tensor, isWhole: role === 'whole' }, info)
    }
    return known
  }

  #input(value: PartedValue, info: ValueInfo): void {
    this.inputs.set(info.name, { value, info })
  }

  /** The part's own of an axis of so many elements. */
  #slice(from: string, axis: number, extent: number, to: string): void {
    const bounds = ['first', 'last'].map((bound, at) => {
      const name = `${bound} of ${extent}`
      const numbers = Array.from({ length: this.#parts }, (_, part) => ((part + at) * extent) / this.#parts)
      this.inputs.set(name, { value: { numbers }, info: { name, dtype: 'int64', shape: [1] } })
      return name
    })
    const axes = `axis ${axis}`
    this.initializers.set(axes, hostTensor('int64', [1], [axis]))
    this.nodes.push({ op: 'Slice', inputs: [from, ...bounds, axes], outputs: [to], attributes: {} })
  }

  #reshape(from: string, shape: Shape, to: string): void {
    this.initializers.set(`${to}/shape`, hostTensor('int64', [shape.length], shape))
    this.nodes.push({ op: 'Reshape', inputs: [from, `${to}/shape`], outputs: [to], attributes: {} })
  }
}

const partOf = (name: string): string => `${name}/part`

function shapeOfPart(shape: Shape, parts: number): Shape {
  const [first, ...others] = shape
  return parts === 1 ? shape : [first! / parts, ...others]
}

/** Of a constant all of whose parts are alike; of columns, there is one row. */
function partOfConstant(constant: HostTensor, role: Role, parts: number): HostTensor {
  if (role === 'whole') return constant
  const { dtype, shape, data } = constant
  const own = role === 'part' ? shapeOfPart(shape, parts) : [1, data.length / parts]
  return { dtype, shape: own, data: data.slice(0, data.length / parts) } as HostTensor
}
