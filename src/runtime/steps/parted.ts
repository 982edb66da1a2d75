/**
 * Products that are many by themselves, one for each image or row of tiles, and what goes with them: graphs whose
 * values fall into parts along their first axes, such that each part of what they give comes of the same part of what
 * they read. Each thread runs parts of its own from the first node to the last, while they lie in its cache, where
 * threads that share each node wait for each other at each node, and write all of it before the next begins.
 */
import { intOf, intsOf } from '../../onnx/attributes.ts'
import { costOfNode } from '../../onnx/cost.ts'
import type { OnnxGraph, OnnxNode } from '../../onnx/model.ts'
import type { ValueType } from '../../onnx/shapes.ts'
import { normalizeAxis } from '../../util/broadcast.ts'
import { type HostTensor, hostTensor, type Shape, toNumbers } from '../../util/host-tensor.ts'
import { LANES } from './access.ts'
import { isElementwise } from './kernel.ts'
import { MOST_THREADS } from './share.ts'
import { joinedByNames, type StepBody } from './step-body.ts'
import { isProduct } from './weights.ts'

/** A graph that is run part by part. */
export interface PartedGraph {
  readonly name: string
  readonly parts: number
  /** Of one part. */
  readonly graph: OnnxGraph
  /** Of each input and output of the graph. */
  readonly inputs: readonly PartedValue[]
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

/** Whether parts of a node's value come of parts of an input, or of all of it. */
export type Role = 'part' | 'whole'

/** Multiply-adds below which a part is not worth a run of its own: a run costs some microseconds. */
const LEAST_PART = 2_000_000
/** Multiply-adds that a processor does in the time of an operation on vectors. */
const PRODUCTS_PER_OPERATION = 16

/** Which nodes fall into parts, and how many. */
export class Parting {
  readonly #body: StepBody
  readonly #roles = new Map<OnnxNode, readonly Role[]>()
  readonly #parts = new Map<OnnxNode, number>()

  /**
   * @param threads that share the parts: there are as many parts, or none; nor where only some of the threads would
   * @param isKernels whether a node is computed by kernels
   */
  constructor(body: StepBody, threads: number, isKernels: (node: OnnxNode) => boolean) {
    this.#body = body
    if (threads > MOST_THREADS) return
    for (const node of body.nodes) {
      const roles = isKernels(node) ? undefined : this.#findRoles(node)
      if (roles) this.#roles.set(node, roles)
    }
    const groups = joinedByNames(
      [...this.#roles.keys()],
      node => new Set([...this.partsRead(node), ...node.outputs]),
    )
    for (const group of groups)
      if (this.#saved(group, isKernels) <= 0) for (const node of group) this.#roles.delete(node)
    for (const node of [...this.#roles.keys()].reverse()) {
      const parts = isProduct(node) ? this.#partsOfProduct(node) : this.#partsOfReaders(node)
      if (parts >= Math.max(2, threads) && this.fallsInto(node, parts)) this.#parts.set(node, parts)
    }
  }

  /** The values that a node reads part by part. */
  partsRead(node: OnnxNode): string[] {
    const roles = this.#roles.get(node)!
    return node.inputs.filter((_, i) => roles[i] === 'part').map(name => this.#body.baseOf(name))
  }

  /**
   * What stays in caches, less what does not: values that nodes of a group, and kernels, which are shared alike, hand
   * to each other, and values between them and nodes that ONNX Runtime shares among threads of its own.
   */
  #saved(group: ReadonlySet<OnnxNode>, isKernels: (node: OnnxNode) => boolean): number {
    const between = (name: string, other: OnnxNode) =>
      group.has(other) || isKernels(other) ? this.#body.sizeOf(name) : -this.#body.sizeOf(name)
    const saved = [...group].flatMap(node => [
      ...this.partsRead(node).map(name => {
        const producer = this.#body.producerOf(name)
        return producer ? between(name, producer) : 0
      }),
      ...node.outputs.flatMap(name =>
        this.#body.realReadersOf(name).map(reader => (group.has(reader) ? 0 : between(name, reader))),
      ),
    ])
    return saved.reduce((sum, value) => sum + value, 0)
  }

  /** How many parts a node is best run in; undefined: it is run in parts only beside others. */
  partsOf(node: OnnxNode): number | undefined {
    return this.#parts.get(node)
  }

  /** Whether the value of a node, and what it reads part by part, fall into so many parts. */
  fallsInto(node: OnnxNode, parts: number): boolean {
    // ONNX Runtime begins some sums at the next multiple of 16 bytes: parts must not differ in their bits by that.
    const isAligned = (name: string) => (this.#body.sizeOf(name) / parts) % LANES === 0
    const isWhole = this.#shapeOf(node)[0]! % parts === 0
    return isWhole && [...node.outputs, ...this.partsRead(node)].every(isAligned)
  }

  /** For each input; undefined where the node's value is not made part by part. */
  rolesOf(node: OnnxNode): readonly Role[] | undefined {
    return this.#roles.get(node)
  }

  #shapeOf(node: OnnxNode): Shape {
    return this.#body.typeOf(node.outputs[0]!).shape
  }

  #findRoles(node: OnnxNode): readonly Role[] | undefined {
    const { outputs, inputs } = node
    const isPlain = outputs.length === 1 && inputs.every(name => name !== '') && !this.#body.isAlias(node)
    if (!isPlain || !this.#body.isFloat(outputs[0]!) || !this.#body.isOfOneShape(outputs[0]!))
      return undefined
    const roles = this.#rolesByOperator(node)
    return roles?.every((role, i) => this.#canBe(inputs[i]!, role)) ? roles : undefined
  }

  /** Constants are the same in each part. */
  #canBe(name: string, role: Role): boolean {
    const constant = this.#body.constant(name)
    if (!constant) return this.#body.isFloat(name) && this.#body.isOfOneShape(name)
    return role === 'whole' || isUniform(constant)
  }

  #rolesByOperator(node: OnnxNode): readonly Role[] | undefined {
    const { op, inputs, attributes } = node
    const shape = this.#shapeOf(node)
    const shapes = inputs.map(name => this.#body.typeOf(name).shape)
    const { length } = shape
    const axisOf = (axis: number) => normalizeAxis(op, axis, shapes[0]!.length)
    if (length < 2) return undefined
    if (isProduct(node)) {
      const { transBatchA, transBatchB } = attributes
      const isPlain = intOf(transBatchA, 0) === 0 && intOf(transBatchB, 0) === 0
      return isPlain && length > 2 ? this.#broadcastRoles(shape, shapes) : undefined
    }
    switch (op) {
      case 'Softmax':
        return axisOf(intOf(attributes.axis, -1)) > 0 ? ['part'] : undefined
      case 'Transpose':
        return intsOf(attributes.perm)?.[0] === 0 ? ['part'] : undefined
      case 'Concat':
        return axisOf(intOf(attributes.axis, 0)) > 0 ? inputs.map(() => 'part') : undefined
      case 'ReduceSum': {
        const axes = this.#body.constant(inputs[1] ?? '')
        const isWithin = axes && toNumbers(axes).every(axis => axisOf(axis) > 0)
        return isWithin && intOf(attributes.keepdims, 1) === 1 ? ['part', 'whole'] : undefined
      }
      default:
        return isElementwise(node) && op !== 'Reshape' && op !== 'Identity'
          ? this.#broadcastRoles(shape, shapes)
          : undefined
    }
  }

  #broadcastRoles(shape: Shape, shapes: readonly Shape[]): Role[] {
    return shapes.map(own => (own.length === shape.length && own[0] !== 1 ? 'part' : 'whole'))
  }

  #partsOfProduct(node: OnnxNode): number {
    const [extent] = this.#shapeOf(node) as [number]
    let parts = Math.min(extent, Math.floor(multiplyAddsOf(node, this.#body) / LEAST_PART))
    while (parts > 1 && !this.fallsInto(node, parts)) parts--
    return parts
  }

  /** Of a node that only nodes in parts read, each of them part by part. */
  #partsOfReaders(node: OnnxNode): number {
    const [value] = node.outputs as [string]
    const readers = this.#body.realReadersOf(value)
    const isPartOf = (reader: OnnxNode) =>
      reader.inputs.every(
        (name, i) => this.#body.baseOf(name) !== value || this.rolesOf(reader)?.[i] === 'part',
      )
    const all = readers.map(reader => (isPartOf(reader) ? (this.#parts.get(reader) ?? 1) : 1))
    return all.length > 0 && Math.min(...all) > 1 ? Math.max(...all) : 1
  }
}

const multiplyAddsOf = ({ op, inputs, outputs }: OnnxNode, body: StepBody): number => {
  const typesOf = (names: readonly string[]) => names.map(name => body.typeOf(name))
  return costOfNode(op, typesOf(inputs), typesOf(outputs)).multiplyAdds
}

/** Whether all slices of a constant along its first axis are equal. */
function isUniform({ shape, data }: HostTensor): boolean {
  const rows = shape[0] ?? 1
  const size = data.length / rows
  return Array.from(data as ArrayLike<unknown>).every((value, i) => value === data[i % size])
}

const shapeOfPart = ([first, ...others]: Shape, parts: number): number[] => [first! / parts, ...others]

/** The graph of one part of some nodes, in their order. `isRead`: whether a value is read beyond them. */
export function partedGraph(
  body: StepBody,
  parting: Parting,
  nodes: readonly OnnxNode[],
  parts: number,
  isRead: (name: string) => boolean,
): PartedGraph {
  const own = new Set(nodes)
  const made: OnnxNode[] = []
  const initializers = new Map<string, HostTensor>()
  const inputs = new Map<string, PartedValue & { readonly shape: Shape }>()
  const named = (name: string, role: Role): string => {
    const isWhole = role === 'whole'
    const { shape } = body.typeOf(name)
    const known = isWhole ? name : `${name}/part`
    const constant = body.constant(name)
    if (constant) {
      initializers.set(known, isWhole ? constant : firstPart(constant, parts))
      return known
    }
    const base = body.baseOf(name)
    const producer = body.producerOf(base)
    if (isWhole && producer && own.has(producer)) throw new Error(`${base}: made in parts, and read whole`)
    if (!producer || !own.has(producer))
      inputs.set(known, { tensor: base, isWhole, shape: isWhole ? shape : shapeOfPart(shape, parts) })
    else if (base !== name && !made.some(({ outputs }) => outputs[0] === known)) {
      const extents = shapeOfPart(shape, parts)
      initializers.set(`${known}/shape`, hostTensor('int64', [extents.length], extents))
      made.push({
        op: 'Reshape',
        inputs: [`${base}/part`, `${known}/shape`],
        outputs: [known],
        attributes: {},
      })
    }
    return known
  }
  for (const node of nodes) {
    const roles = parting.rolesOf(node)!
    const renamed = node.inputs.map((name, i) => named(name, roles[i]!))
    made.push({ ...node, inputs: renamed, outputs: node.outputs.map(name => `${name}/part`) })
  }
  const outputs = nodes.flatMap(node => node.outputs).filter(isRead)
  const float = (name: string, shape: Shape) => ({ name, dtype: 'float32' as const, shape })
  const operations = nodes.reduce((sum, node) => {
    return sum + multiplyAddsOf(node, body) / PRODUCTS_PER_OPERATION + body.sizeOf(node.outputs[0]!)
  }, 0)
  return {
    name: nodes.find(isProduct)?.name ?? nodes[0]!.name ?? '',
    parts,
    graph: {
      name: 'part',
      nodes: made,
      initializers: [...initializers].map(([name, tensor]) => ({ name, tensor })),
      inputs: [...inputs].map(([name, { shape }]) => float(name, shape)),
      outputs: outputs.map(name => float(`${name}/part`, shapeOfPart(body.typeOf(name).shape, parts))),
    },
    inputs: [...inputs.values()].map(({ tensor, isWhole }) => ({ tensor, isWhole })),
    outputs: outputs.map(tensor => ({ tensor, isWhole: false })),
    operands: nodes[0]!.inputs.map(name => body.typeOf(name)),
    work: Math.round(operations),
  }
}

function firstPart({ dtype, shape, data }: HostTensor, parts: number): HostTensor {
  const length = data.length / parts
  return { dtype, shape: shapeOfPart(shape, parts), data: data.slice(0, length) } as HostTensor
}
