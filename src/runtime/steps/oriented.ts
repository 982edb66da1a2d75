/**
 * Graphs with matrices laid as their products had better have them. ONNX Runtime packs the right matrix of a product, and
 * copies a left one that is to be transposed: values of few images and many units are therefore made transposed where
 * that is shorter, from one product to the next ones.
 */
import { intOf } from '../../onnx/attributes.ts'
import type { OnnxGraph, OnnxNode } from '../../onnx/model.ts'
import { typesOf, type ValueType } from '../../onnx/shapes.ts'
import { hostTensor, type Shape, sameShape, sizeOf } from '../../util/host-tensor.ts'
import { isByElement } from './roles.ts'
import { withScales } from './scaled.ts'
import { EXTENTS, joinedByNames } from './step-body.ts'
import { COLUMNS } from './turned.ts'

/** Multiply-adds in the time that an element of a right matrix takes to be packed. */
const PACKING = 17
/** The same of an element of a left matrix that is transposed, for each {@link COLUMNS} of the right one. */
const TRANSPOSING = 20
/** The same of one more node. */
const NODE = 65_000
/** What part of its products' time a group of values must save: less is not worth sums that round otherwise. */
const LEAST_SAVED = 0.03

/** Values that lie alike: what products make, and what is computed from it element by element. */
interface Group {
  readonly nodes: ReadonlySet<OnnxNode>
  readonly values: ReadonlySet<string>
  /** Those that make or read the values. */
  readonly products: readonly OnnxNode[]
  /** What is broadcast to the values' shape, but for single numbers. */
  readonly broadcast: ReadonlySet<string>
}

/** A graph that computes the same in less time, as far as that is known; sums may round otherwise. */
export function oriented(graph: OnnxGraph): OnnxGraph {
  const isFlat = graph.nodes.every(({ attributes }) => Object.values(attributes).every(a => !('graph' in a)))
  const types = isFlat ? knownTypes(graph) : undefined
  if (!types) return graph
  const scaled = withScales(graph, types)
  const laid = new Orienting(scaled, scaled === graph ? types : typesOf(scaled, EXTENTS)).graph()
  return withAddends(laid, laid === graph ? types : typesOf(laid, EXTENTS))
}

/** Undefined where a node's operator is not known. */
function knownTypes(graph: OnnxGraph): ReadonlyMap<string, ValueType> | undefined {
  try {
    return typesOf(graph, EXTENTS)
  } catch {
    return undefined
  }
}

class Orienting {
  readonly #graph: OnnxGraph
  readonly #types: ReadonlyMap<string, ValueType>
  readonly #readers: ReadonlyMap<string, readonly OnnxNode[]>
  readonly #turned = new Set<string>()
  readonly #nodes: OnnxNode[] = []
  readonly #initializers: OnnxGraph['initializers'][number][]
  /** Rows as columns. */
  readonly #columns = new Map<string, string>()

  constructor(graph: OnnxGraph, types: ReadonlyMap<string, ValueType>) {
    this.#graph = graph
    this.#types = types
    this.#initializers = [...graph.initializers]
    const read = graph.nodes.flatMap(node => [...new Set(node.inputs)].map(name => ({ name, node })))
    this.#readers = new Map(
      [...Map.groupBy(read, ({ name }) => name)].map(([name, all]) => [name, all.map(({ node }) => node)]),
    )
  }

  graph(): OnnxGraph {
    const groups = this.#groups()
    for (let changed = true; changed; ) {
      changed = false
      for (const group of groups) if (this.#turnIfShorter(group)) changed = true
    }
    if (this.#turned.size === 0) return this.#graph
    for (const node of this.#graph.nodes) this.#nodes.push(this.#laid(node))
    return { ...this.#graph, nodes: this.#nodes, initializers: this.#initializers }
  }

  #groups(): Group[] {
    const outputs = new Set(this.#graph.outputs.map(({ name }) => name))
    const makers = this.#graph.nodes.filter(node => this.#isProduct(node) || this.#isMatrixByElement(node))
    const groups = joinedByNames(makers, node => new Set(this.#valuesOf(node))).map(nodes =>
      this.#group(nodes),
    )
    const isFree = ({ nodes, values }: Group) => {
      const made = new Set([...nodes].flatMap(node => node.outputs))
      const isOwn = (name: string) =>
        made.has(name) &&
        !outputs.has(name) &&
        (this.#readers.get(name) ?? []).every(reader => nodes.has(reader) || this.#isFactor(name, reader))
      return [...values].every(isOwn)
    }
    return groups.filter(isFree)
  }

  #group(nodes: ReadonlySet<OnnxNode>): Group {
    const all = [...nodes]
    const values = new Set(all.flatMap(node => this.#valuesOf(node)))
    const readers = [...values].flatMap(name => this.#readers.get(name) ?? [])
    const products = new Set([...all, ...readers].filter(node => this.#isProduct(node)))
    return {
      nodes,
      values,
      products: [...products],
      broadcast: new Set(all.flatMap(node => this.#broadcastBy(node))),
    }
  }

  /** The values that lie as the node's does. */
  #valuesOf(node: OnnxNode): readonly string[] {
    const [value] = node.outputs as [string]
    return [
      value,
      ...this.#termsOf(node).filter(name => sameShape(this.#shapeOf(name), this.#shapeOf(value))),
    ]
  }

  #broadcastBy(node: OnnxNode): readonly string[] {
    const values = new Set(this.#valuesOf(node))
    return this.#termsOf(node).filter(name => !values.has(name) && sizeOf(this.#shapeOf(name)) > 1)
  }

  /** What a node reads, but for factors. */
  #termsOf(node: OnnxNode): readonly string[] {
    return this.#isProduct(node) ? node.inputs.slice(2) : node.inputs
  }

  #shapeOf(name: string): Shape {
    return this.#types.get(name)!.shape
  }

  /** Whether a node is a product of two matrices, and at most adds something to it. */
  #isProduct({ op, inputs, outputs }: OnnxNode): boolean {
    return (op === 'MatMul' || op === 'Gemm') && [...inputs.slice(0, 2), ...outputs].every(this.#isMatrix)
  }

  #isMatrixByElement(node: OnnxNode): boolean {
    const isWhole = node.outputs.length === 1 && !node.inputs.includes('')
    return isWhole && this.#isMatrix(node.outputs[0]!) && isByElement(node)
  }

  #isMatrix = (name: string): boolean => {
    const { dtype, shape } = this.#types.get(name)!
    return dtype === 'float32' && shape.length === 2
  }

  /** Whether a value is read as a factor, and as nothing else. */
  #isFactor(name: string, reader: OnnxNode): boolean {
    return this.#isProduct(reader) && reader.inputs.indexOf(name, 2) < 0
  }

  #turnIfShorter(group: Group): boolean {
    const before = this.#costOf(group)
    this.#turn(group)
    if (before - this.#costOf(group) > LEAST_SAVED * before) return true
    this.#turn(group)
    return false
  }

  #turn({ values }: Group): void {
    for (const name of values) if (!this.#turned.delete(name)) this.#turned.add(name)
  }

  #costOf({ values, products, broadcast }: Group): number {
    const isTurned = !values.isDisjointFrom(this.#turned)
    const nodes = isTurned ? broadcast.size * NODE : 0
    return products.reduce((sum, node) => sum + this.#productCost(node), nodes)
  }

  #productCost(node: OnnxNode): number {
    const { inputs, transposed } = this.#factors(node)
    const [left, right] = inputs.map((name, i) => {
      const shape = this.#shapeOf(name)
      return this.#turned.has(name) !== transposed[i]! ? shape.toReversed() : shape
    }) as [Shape, Shape]
    const [rows, inner, columns] = [left[0]!, left[1]!, right[1]!]
    const products = rows * inner * columns
    if (rows === 1 || columns === 1) return products
    const copies = transposed[0] ? rows * inner * Math.ceil(columns / COLUMNS) * TRANSPOSING : 0
    return products + inner * columns * PACKING + copies
  }

  /** What a product reads, in its order, and whether that is to be transposed first, as everything lies now. */
  #factors({ inputs, outputs, attributes }: OnnxNode): { inputs: string[]; transposed: boolean[] } {
    const factors = inputs.slice(0, 2)
    const transposed = [attributes.transA, attributes.transB].map(
      (attribute, i) => (intOf(attribute, 0) === 1) !== this.#turned.has(factors[i]!),
    )
    if (!this.#turned.has(outputs[0]!)) return { inputs: factors, transposed }
    return { inputs: factors.toReversed(), transposed: transposed.toReversed().map(is => !is) }
  }

  /** The node as everything lies. */
  #laid(node: OnnxNode): OnnxNode {
    const isTurned = this.#turned.has(node.outputs[0]!)
    if (!isTurned && !node.inputs.some(name => this.#turned.has(name))) return node
    const rows = new Set(isTurned ? this.#broadcastBy(node) : [])
    const terms = this.#termsOf(node).map(name => (rows.has(name) ? this.#asColumn(name) : name))
    if (!this.#isProduct(node)) return { ...node, inputs: terms }
    const { inputs, transposed } = this.#factors(node)
    const [transA, transB] = transposed.map(is => ({ int: is ? 1 : 0 }))
    const isPlain = node.op === 'MatMul' && !transposed.includes(true)
    const attributes = isPlain ? {} : { ...node.attributes, transA: transA!, transB: transB! }
    return { ...node, op: isPlain ? 'MatMul' : 'Gemm', inputs: [...inputs, ...terms], attributes }
  }

  /** A row as a column, or a column as a row. */
  #asColumn(name: string): string {
    const known = this.#columns.get(name)
    if (known) return known
    const column = `${name}/column`
    this.#columns.set(name, column)
    const shape = [1, ...this.#shapeOf(name)].slice(-2).toReversed()
    const constant = this.#graph.initializers.find(initializer => initializer.name === name)
    if (constant) this.#initializers.push({ name: column, tensor: { ...constant.tensor, shape } })
    else {
      this.#initializers.push({ name: `${column}/shape`, tensor: hostTensor('int64', [2], shape) })
      this.#nodes.push({
        op: 'Reshape',
        inputs: [name, `${column}/shape`],
        outputs: [column],
        attributes: {},
      })
    }
    return column
  }
}

/** What is added to a product of its own is added by the product, where ONNX Runtime does not see to it: of Gemm. */
function withAddends(graph: OnnxGraph, types: ReadonlyMap<string, ValueType>): OnnxGraph {
  const outputs = new Set(graph.outputs.map(({ name }) => name))
  const read = Map.groupBy(
    graph.nodes.flatMap(({ inputs }) => inputs),
    name => name,
  )
  const isOwn = ({ op, inputs, outputs: [value], attributes }: OnnxNode) => {
    const isBare = op === 'Gemm' && inputs.length === 2 && !('beta' in attributes)
    return isBare && !outputs.has(value!) && read.get(value!)?.length === 1
  }
  const products = new Map(graph.nodes.filter(isOwn).map(node => [node.outputs[0]!, node]))
  const sums = new Map<OnnxNode, OnnxNode>()
  const joined = new Set<OnnxNode>()
  for (const node of graph.nodes) {
    const product = node.op === 'Add' && products.get(node.inputs.find(name => products.has(name)) ?? '')
    if (!product) continue
    const [value] = product.outputs as [string]
    const addend = node.inputs.find(name => name !== value)!
    const [sum, whole, own] = [...node.outputs, value, addend].map(name => types.get(name)!.shape)
    if (!sameShape(sum!, whole!) || sameShape(own!, whole!)) continue
    sums.set(node, { ...product, inputs: [...product.inputs, addend], outputs: node.outputs })
    joined.add(product)
  }
  const nodes = graph.nodes.flatMap(node => (joined.has(node) ? [] : (sums.get(node) ?? node)))
  return sums.size > 0 ? { ...graph, nodes } : graph
}
