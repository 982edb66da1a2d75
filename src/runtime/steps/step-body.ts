/** What planning asks of the graph of one step. */
import type { OnnxGraph, OnnxNode, ValueInfo } from '../../onnx/model.ts'
import { typesOf, type ValueType, valuesOf } from '../../onnx/shapes.ts'
import { type HostTensor, showShape, sizeOf, toNumbers } from '../../util/host-tensor.ts'
import type { StatePiece } from './given.ts'

/** How many rows the data has, and how many steps a call makes, changes nothing in a step but the data's own shape. */
export const EXTENTS = { rows: 1, steps: 1 }
const OTHER_EXTENTS = { rows: 2, steps: 3 }

export class StepBody {
  /** Those that something comes of. */
  readonly nodes: readonly OnnxNode[]
  /** The names that the graph gives. */
  readonly outputs: ReadonlySet<string>
  /** The states, as inputs of the step, and the value of each after it. */
  readonly states: readonly ValueInfo[]
  readonly next: readonly string[]
  readonly #stateNames: ReadonlySet<string>
  /** Of the program. */
  readonly #inputs: ReadonlyMap<string, ValueInfo>
  readonly #types: ReadonlyMap<string, ValueType>
  readonly #otherTypes: ReadonlyMap<string, ValueType>
  readonly #constants: ReadonlyMap<string, HostTensor>
  /** What is known of {@link numbersOf}. */
  readonly #numbers = new Map<string, readonly number[]>()
  readonly #producers: ReadonlyMap<string, OnnxNode>
  readonly #readers = new Map<string, OnnxNode[]>()
  /** What is known of {@link baseOf}. */
  readonly #bases = new Map<string, string>()
  /** The states that they are of. */
  readonly #pieces: ReadonlyMap<string, string>

  constructor(
    graph: OnnxGraph,
    body: OnnxGraph,
    states: readonly ValueInfo[],
    next: readonly string[],
    pieces: readonly StatePiece[],
  ) {
    this.#pieces = new Map(pieces.map(({ value, state }) => [value.name, state]))
    this.nodes = neededFor(body.outputs, body.nodes).nodes
    this.outputs = new Set(body.outputs.map(({ name }) => name))
    this.states = states
    this.next = next
    this.#stateNames = new Set(states.map(({ name }) => name))
    this.#inputs = new Map(graph.inputs.map(input => [input.name, input]))
    this.#types = typesOf(body, {}, valuesOf(graph, EXTENTS))
    this.#otherTypes = typesOf(body, {}, valuesOf(graph, OTHER_EXTENTS))
    this.#constants = new Map(
      [...graph.initializers, ...body.initializers].map(({ name, tensor }) => [name, tensor]),
    )
    this.#producers = new Map(this.nodes.flatMap(node => node.outputs.map(output => [output, node] as const)))
    for (const node of this.nodes)
      for (const input of new Set(node.inputs))
        this.#readers.set(input, [...(this.#readers.get(input) ?? []), node])
  }

  typeOf(name: string): ValueType {
    return this.#types.get(name)!
  }

  sizeOf(name: string): number {
    return sizeOf(this.typeOf(name).shape)
  }

  /** Whether a value of the step is of one shape whatever the program is given. */
  isOfOneShape(name: string): boolean {
    return showShape(this.typeOf(name).shape) === showShape(this.#otherTypes.get(name)!.shape)
  }

  isFloat(name: string): boolean {
    return this.typeOf(name).dtype === 'float32'
  }

  /** The node that gives a value; undefined where it is an input or a constant. */
  producerOf(name: string): OnnxNode | undefined {
    return this.#producers.get(name)
  }

  readersOf(name: string): readonly OnnxNode[] {
    return this.#readers.get(name) ?? []
  }

  /** The nodes that read a value in any shape, but for those that give it another. */
  realReadersOf(name: string): OnnxNode[] {
    return this.readersOf(name).flatMap(reader =>
      this.isAlias(reader) ? this.realReadersOf(reader.outputs[0]!) : [reader],
    )
  }

  /** Whether a value is one of `needed`, in any shape. */
  isAmong(needed: ReadonlySet<string>, name: string): boolean {
    return (
      needed.has(name) ||
      this.readersOf(name).some(reader => this.isAlias(reader) && this.isAmong(needed, reader.outputs[0]!))
    )
  }

  /** Whether anything but the nodes `own` reads a value in any shape, or `needed` has it. */
  isReadBeyond(name: string, own: ReadonlySet<OnnxNode>, needed: ReadonlySet<string>): boolean {
    return this.isAmong(needed, name) || this.realReadersOf(name).some(reader => !own.has(reader))
  }

  constant(name: string): HostTensor | undefined {
    return this.#constants.get(name)
  }

  /** The values of a constant. */
  numbersOf(name: string): readonly number[] | undefined {
    const tensor = this.#constants.get(name)
    if (!tensor) return undefined
    const numbers = this.#numbers.get(name) ?? toNumbers(tensor)
    this.#numbers.set(name, numbers)
    return numbers
  }

  /** The value of a float32 constant of one element. */
  scalarConstant(name: string): number | undefined {
    const tensor = this.#constants.get(name)
    return tensor?.dtype === 'float32' && sizeOf(tensor.shape) === 1 ? Number(tensor.data[0]) : undefined
  }

  isState(name: string): boolean {
    return this.#stateNames.has(name)
  }

  /** The state that a value is, in any shape, or a piece of. */
  stateOf(name: string): string | undefined {
    const base = this.baseOf(name)
    return this.isState(base) ? base : this.#pieces.get(base)
  }

  /** Whether a value is a piece of a state, in any shape. */
  isPiece(name: string): boolean {
    return this.#pieces.has(this.baseOf(name))
  }

  /** Whether a name is that of an input of the program whose shape is known before it runs. */
  isOfFixedSize(name: string): boolean {
    return this.#inputs.get(name)?.shape?.every(extent => typeof extent === 'number') ?? false
  }

  /** Of an input of the program whose extents only a run knows: with names for those; undefined: it is none. */
  shapeOfData(name: string): ValueInfo['shape'] {
    return this.isOfFixedSize(name) ? undefined : this.#inputs.get(name)?.shape
  }

  /** The value in memory of which another is the same bytes in another shape. */
  baseOf(name: string): string {
    const known = this.#bases.get(name)
    if (known !== undefined) return known
    const producer = this.#producers.get(name)
    const base = producer && this.isAlias(producer) ? this.baseOf(producer.inputs[0]!) : name
    this.#bases.set(name, base)
    return base
  }

  /** Whether a node only gives what a node or an input gives, at most in another shape. */
  isAlias({ op, inputs }: OnnxNode): boolean {
    const [input] = inputs as [string]
    const isAlike = op === 'Reshape' || op === 'Identity'
    return isAlike && (this.#producers.has(input) || this.isState(input) || this.isOfFixedSize(input))
  }
}

/** Those of the nodes that `outputs` come of, in their order, and the names that they and the outputs need. */
export function neededFor(
  outputs: readonly { readonly name: string }[],
  nodes: readonly OnnxNode[],
): { nodes: OnnxNode[]; names: ReadonlySet<string> } {
  const names = new Set(outputs.map(({ name }) => name))
  const needed = nodes.toReversed().filter(node => {
    const isNeeded = node.outputs.some(output => names.has(output))
    if (isNeeded) for (const input of node.inputs) names.add(input)
    return isNeeded
  })
  return { nodes: needed.reverse(), names }
}

interface NamedGroup {
  readonly nodes: Set<OnnxNode>
  readonly names: Set<string>
  /** The place of the node that came last. */
  last: number
}

/** The nodes that share names, put together, in any order; groups in the order of their last nodes. */
export function joinedByNames(
  nodes: readonly OnnxNode[],
  namesOf: (node: OnnxNode) => ReadonlySet<string>,
): Set<OnnxNode>[] {
  const groups = new Set<NamedGroup>()
  const groupOf = new Map<string, NamedGroup>()
  for (const [last, node] of nodes.entries()) {
    const names = [...namesOf(node)]
    const found = new Set(names.flatMap(name => groupOf.get(name) ?? []))
    // The largest takes in the others: a long chain is never copied to a node that joins it.
    const [group = { nodes: new Set(), names: new Set(), last }, ...others] = [...found].sort(
      (a, b) => b.names.size - a.names.size,
    )
    for (const other of others) groups.delete(other)
    for (const own of [...others.flatMap(other => [...other.nodes]), node]) group.nodes.add(own)
    for (const name of [...others.flatMap(other => [...other.names]), ...names]) {
      group.names.add(name)
      groupOf.set(name, group)
    }
    group.last = last
    groups.add(group)
  }
  return [...groups].sort((a, b) => a.last - b.last).map(group => group.nodes)
}
