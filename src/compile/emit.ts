/** Writes a symbolic graph as ONNX nodes. */
import {
  expansionOf,
  type Lowering,
  type Node,
  type Origin,
  type Pass,
  type Tensor,
  topological,
} from '../graph/node.ts'
import { Input } from '../graph/ops/source.ts'
import type { OnnxGraph, OnnxModel, OnnxNode } from '../onnx/model.ts'
import { bytesOf, type HostTensor, hostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
import { nameWithOrigin } from './node-names.ts'

export interface NamedTensor {
  readonly name: string
  readonly tensor: Tensor
}

export interface EmitOptions {
  readonly name?: string
  /** Prefer ONNX's own composite operators (Conv, MaxPool) to the faster compositions. Default: false. */
  readonly portable?: boolean
  /**
   * Put before the names of nodes and constants, so that they differ from those of an enclosing graph.
   * Default: ''.
   */
  readonly prefix?: string
  /** The name by which an Input is known in this graph. Default: its own. */
  readonly inputName?: (name: string) => string
  /** Inputs whose values other tensors of the graph have. Default: none. */
  readonly alias?: ReadonlyMap<Tensor, Tensor>
}

/**
 * The ONNX graph that computes `outputs`. `inputs` are Input nodes' tensors, in the order of the graph's
 * inputs; an Input that is not among them is taken from an enclosing graph under its name. Equal computations
 * are written once. Nodes that have an origin have it in their names: `backward/conv2d_1/MatMul_12`.
 */
export function emitGraph(
  outputs: readonly NamedTensor[],
  inputs: readonly Tensor[],
  options: EmitOptions = {},
): OnnxGraph {
  const { portable = false } = options
  const writer = new Writer(options.prefix ?? '', portable)
  const inputName = options.inputName ?? (name => name)
  const expands = (node: Node) => node.op.expand !== undefined && !(portable && node.op.onnx !== undefined)
  const names = new Map<Node, readonly string[]>()
  const nameOf = (tensor: Tensor) => names.get(tensor.node)![tensor.index]!
  const roots = outputs.map(output => output.tensor)
  const standsFor = (node: Node): readonly Tensor[] | undefined => {
    const other = options.alias?.get(node.outputs[0]!)
    return other ? [other] : expands(node) ? expansionOf(node) : undefined
  }
  for (const node of topological(roots, n => standsFor(n) ?? n.inputs)) {
    const others = standsFor(node)
    if (others) names.set(node, others.map(nameOf))
    else if (node.op === Input) names.set(node, [inputName(node.attributes.name)])
    else {
      if (!node.op.onnx) throw new Error(`${node.op.op} has no ONNX lowering`)
      writer.origin = node.origin
      const result = node.op.onnx(writer, node.inputs.map(nameOf), node)
      names.set(node, typeof result === 'string' ? [result] : result)
    }
  }
  const renamed = new Map<string, string>()
  const produced = new Set(writer.nodes.flatMap(node => node.outputs))
  for (const { name, tensor } of outputs) {
    const inner = nameOf(tensor)
    // A value that has a name already, as an input, a constant or another output, is passed on by a node of
    // its own.
    if (produced.has(inner) && !renamed.has(inner)) renamed.set(inner, name)
    else writer.pass(inner, name, tensor.node.origin)
  }
  const rename = (name: string) => renamed.get(name) ?? name
  const read = new Set(writer.nodes.flatMap(node => node.inputs))
  return {
    name: options.name ?? 'graph',
    nodes: withNames(writer.nodes).map(node => ({
      ...node,
      inputs: node.inputs.map(rename),
      outputs: node.outputs.map(rename),
    })),
    initializers: writer.initializers.filter(({ name }) => read.has(name)),
    inputs: inputs.map(tensor => ({
      name: inputName(tensor.node.attributes.name),
      dtype: tensor.dtype,
      shape: tensor.shape,
    })),
    outputs: outputs.map(({ name, tensor }) => ({ name, dtype: tensor.dtype, shape: tensor.shape })),
  }
}

/** A model of Fovea's opsets around a graph. */
export function modelOf(graph: OnnxGraph, metadata: Readonly<Record<string, string>> = {}): OnnxModel {
  return {
    irVersion: 9,
    producer: 'fovea',
    opsets: [
      { domain: '', version: 18 },
      { domain: 'com.microsoft', version: 1 },
    ],
    metadata,
    graph,
  }
}

/** A node whose name has not been written yet. */
interface Draft extends OnnxNode {
  /** Its own part of the name. */
  readonly called: string
  readonly origin: Origin | undefined
}

const passes: readonly Pass[] = ['forward', 'backward', 'update']

/**
 * What an earlier pass needs is part of that pass, even where a later one asked for it first, as the gradient
 * of a kernel asks for the transformed input.
 */
function withNames(drafts: readonly Draft[]): OnnxNode[] {
  const earliest = new Map<string, number>()
  const named = drafts.toReversed().map(({ called, origin, ...node }): OnnxNode => {
    if (!origin) return { ...node, name: called }
    const readers = node.outputs.map(output => earliest.get(output) ?? passes.length)
    const pass = Math.min(passes.indexOf(origin.pass), ...readers)
    for (const input of node.inputs) earliest.set(input, Math.min(pass, earliest.get(input) ?? passes.length))
    return { ...node, name: nameWithOrigin({ ...origin, pass: passes[pass]! }, called) }
  })
  return named.reverse()
}

/** Collects nodes and constants; equal ones only once. */
class Writer implements Lowering {
  readonly portable: boolean
  readonly nodes: Draft[] = []
  /** Of the nodes to come. */
  origin: Origin | undefined
  readonly initializers: { name: string; tensor: HostTensor }[] = []
  private readonly known = new Map<string, string[]>()
  private readonly constants = new Map<string, { name: string; bytes: Uint8Array }[]>()
  private readonly prefix: string
  private count = 0

  constructor(prefix: string, portable: boolean) {
    this.prefix = prefix
    this.portable = portable
  }

  emit(
    op: string,
    inputs: readonly string[],
    attributes: OnnxNode['attributes'] = {},
    { outputs = 1, domain }: { outputs?: number; domain?: string } = {},
  ): string[] {
    const signature = JSON.stringify([op, domain, inputs, attributes, outputs])
    const same = this.known.get(signature) ?? this.reshaped(op, inputs)
    if (same) return same
    const number = ++this.count
    const names = Array.from(
      { length: outputs },
      (_, i) => `${this.prefix}${op}_${number}${outputs > 1 ? `_${i}` : ''}`,
    )
    const called = `${this.prefix}${op}_${number}`
    const { origin } = this
    this.nodes.push({ op, ...(domain ? { domain } : {}), inputs, outputs: names, attributes, called, origin })
    this.known.set(signature, names)
    return names
  }

  /** A number in another shape, as a constant: a node that reshapes it would be run with each step. */
  private reshaped(op: string, [input, shape]: readonly string[]): string[] | undefined {
    if (op !== 'Reshape') return undefined
    const tensorOf = (name: string) => this.initializers.find(constant => constant.name === name)?.tensor
    const number = tensorOf(input!)
    if (!number || sizeOf(number.shape) !== 1) return undefined
    const rank = tensorOf(shape!)?.data.length
    return rank === undefined ? undefined : [this.constant({ ...number, shape: new Array(rank).fill(1) })]
  }

  /** Gives a value another name. */
  pass(inner: string, name: string, origin: Origin | undefined): void {
    const called = `${this.prefix}Identity_${++this.count}`
    this.nodes.push({ op: 'Identity', inputs: [inner], outputs: [name], attributes: {}, called, origin })
  }

  constant(value: HostTensor): string {
    const bytes = bytesOf(value)
    const signature = `${value.dtype} ${showShape(value.shape)} ${quickHash(bytes)}`
    const candidates = this.constants.get(signature) ?? []
    const same = candidates.find(candidate => equalBytes(candidate.bytes, bytes))
    if (same) return same.name
    const name = `${this.prefix}constant_${this.initializers.length}`
    this.initializers.push({ name, tensor: value })
    this.constants.set(signature, [...candidates, { name, bytes }])
    return name
  }

  ints(values: readonly number[]): string {
    return this.constant(hostTensor('int64', [values.length], values))
  }
}

/** FNV-1a over at most a thousand of the bytes: only groups candidates, which are then compared in full. */
function quickHash(bytes: Uint8Array): number {
  const stride = Math.max(1, Math.floor(bytes.length / 1000))
  let hash = 0x811c9dc5
  for (let i = 0; i < bytes.length; i += stride) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  return hash >>> 0
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}
