/**
 * Products that are many by themselves, one for each image or row of tiles, and what goes with them: graphs whose
 * values fall into parts along their first axes, such that each part of what they give comes of the same part of what
 * they read. Each thread runs parts of its own from the first node to the last, while they lie in its cache, where
 * threads that share each node wait for each other at each node, and write all of it before the next begins.
 */
import type { OnnxNode } from '../../onnx/model.ts'
import { bytesPerElement, type Shape, sizeOf } from '../../util/host-tensor.ts'
import { multiplyAddsOf } from './parted-graph.ts'
import { type Role, rolesOf } from './roles.ts'
import { MOST_THREADS } from './share.ts'
import { joinedByNames, type StepBody } from './step-body.ts'
import { isProduct } from './weights.ts'

/** Multiply-adds below which a part is not worth a run of its own: a run costs some microseconds. */
const LEAST_PART = 2_000_000
/**
 * Parts begin at multiples of so many bytes: the bits of ONNX Runtime's sums depend on where they begin, and the number
 * of threads is to change none.
 */
const PART_BYTES = 16

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
      const roles = isKernels(node) || !this.#isWorth(node) ? undefined : rolesOf(node, body)
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

  /** Vectors are short, and a plain product is shared by ONNX Runtime; kernels beside it read nothing but float32. */
  #isWorth(node: OnnxNode): boolean {
    const { length } = this.#shapeOf(node)
    const floats = [...node.outputs, ...node.inputs.filter(name => name !== '' && !this.#body.constant(name))]
    return length > (isProduct(node) ? 2 : 1) && floats.every(name => this.#body.isFloat(name))
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
    const isWhole = this.#shapeOf(node)[0]! % parts === 0
    const values = [...node.outputs, ...this.partsRead(node)]
    return isWhole && values.every(name => this.#isAligned(name, parts))
  }

  /** Whether equal parts of a value's memory begin where they may. */
  #isAligned(name: string, parts: number): boolean {
    const { dtype, shape } = this.#body.typeOf(name)
    return ((sizeOf(shape) * bytesPerElement[dtype]) / parts) % PART_BYTES === 0
  }

  /** For each input; undefined where the node's value is not made part by part. */
  rolesOf(node: OnnxNode): readonly Role[] | undefined {
    return this.#roles.get(node)
  }

  #shapeOf(node: OnnxNode): Shape {
    return this.#body.typeOf(node.outputs[0]!).shape
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
