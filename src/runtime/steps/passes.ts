/**
 * What kernels compute within a step: chains of nodes that go element by element, or by rows of few weights, where
 * ONNX Runtime would read and write memory for each node.
 */
import { intsOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { LANES } from './access.ts'
import { isMove } from './expression.ts'
import { isElementwise, operandsOf } from './kernel.ts'
import { joinedByNames, type StepBody } from './step-body.ts'
import type { Updates } from './updates.ts'
import { isProduct, weightsOf } from './weights.ts'

/**
 * What kernels compute a node as; `sum`: of the rows of a matrix; `weighted`: by a matrix of mostly zeros; `turn`: the
 * transpose of a matrix.
 */
export type PassKind = 'move' | 'elementwise' | 'sum' | 'weighted' | 'turn'

/** Values below which a node is worth no kernel of its own. */
const LEAST_VALUES = 8192
/** The largest share of weights that are not zero, by which a kernel is faster than a matrix product. */
const MOST_WEIGHTS = 0.55
/** Extents up to which a matrix of weights becomes code. */
const MOST_ROWS = 64

// The model of what a chain costs, in microseconds; measured on two cores of an EPYC, and of two or three apart from
// others: what ONNX Runtime takes for a node, what going to the kernels and back takes, what a sum does by the stages
// that wait for it, and a microsecond's bytes and multiply-adds.
const NODE = 2
const DETOUR = 40
const STAGES = 15
const BYTES = 40_000
const MULTIPLICATIONS = 40_000

export class Passes {
  readonly #body: StepBody
  readonly #updates: Updates
  readonly #refused: ReadonlySet<OnnxNode>
  readonly #apart: ReadonlySet<string>
  readonly #kinds = new Map<OnnxNode, PassKind | undefined>()
  readonly #chosen = new Map<OnnxNode, PassKind>()

  /**
   * @param refused nodes that no kernel can compute after all
   * @param apart weighted rows that kernels of their own are to write
   */
  constructor(body: StepBody, updates: Updates, refused: ReadonlySet<OnnxNode>, apart: ReadonlySet<string>) {
    this.#body = body
    this.#updates = updates
    this.#refused = refused
    this.#apart = apart
    for (const chain of this.#chains())
      if (this.#saved(chain) > 0) for (const node of chain) this.#chosen.set(node, this.#kindOf(node)!)
    for (const node of this.#between()) this.#chosen.set(node, this.#kindOf(node)!)
  }

  /** Undefined: ONNX Runtime computes the node, or an update does. */
  kindOf(node: OnnxNode): PassKind | undefined {
    return this.#chosen.get(node)
  }

  /** What kernels could compute a node as. */
  #kindOf(node: OnnxNode): PassKind | undefined {
    if (!this.#kinds.has(node)) this.#kinds.set(node, this.#findKind(node))
    return this.#kinds.get(node)
  }

  #findKind(node: OnnxNode): PassKind | undefined {
    const [output] = node.outputs as [string]
    if (this.#refused.has(node) || this.#updates.has(node) || this.#body.isAlias(node)) return undefined
    if (!node.outputs.every(name => this.#body.isFloat(name))) return undefined
    // Constants of many values are ONNX Runtime's own.
    const isOutside = (name: string) => this.#body.constant(name) && this.#body.sizeOf(name) > 1
    if (this.#valuesOf(node).some(isOutside)) return undefined
    if (isMove(node)) return 'move'
    if (isTurn(node, this.#body)) return 'turn'
    if (isProduct(node)) return this.#productKind(node)
    const fits = isElementwise(node) && this.#body.sizeOf(output) > 1
    return fits && operandsOf(node).every(name => this.#body.isFloat(name)) ? 'elementwise' : undefined
  }

  #productKind(node: OnnxNode): PassKind | undefined {
    const { shape } = this.#body.typeOf(node.inputs[1]!)
    const matrix = weightsOf(node, this.#body)
    if (!matrix || shape.at(-1)! % LANES !== 0) return undefined
    const { rows, columns, values } = matrix
    if (rows === 1 && shape.length === 2 && values.every(weight => weight === 1)) return 'sum'
    const used = values.filter(weight => weight !== 0).length
    const isSparse = used <= MOST_WEIGHTS * values.length
    return isSparse && Math.max(rows, columns) <= MOST_ROWS ? 'weighted' : undefined
  }

  /** The values that a node reads, but for those of its shape and its weights. */
  #valuesOf(node: OnnxNode): readonly string[] {
    if (node.op === 'Concat') return node.inputs
    if (isMove(node)) return node.inputs.slice(0, 1)
    return isProduct(node) ? node.inputs.slice(1) : operandsOf(node)
  }

  #isLarge = (name: string): boolean => this.#body.sizeOf(name) >= LEAST_VALUES

  /** Large nodes that read or give one value. */
  #chains(): Set<OnnxNode>[] {
    const largeOf = (node: OnnxNode) => [...this.#valuesOf(node), ...node.outputs].filter(this.#isLarge)
    return joinedByNames(
      this.#body.nodes.filter(node => this.#kindOf(node) && largeOf(node).length > 0),
      node => new Set(largeOf(node).map(name => this.#body.baseOf(name))),
    )
  }

  /** Microseconds, by the model above. */
  #saved(chain: ReadonlySet<OnnxNode>): number {
    const bytes = (names: Iterable<string>) =>
      [...names].reduce((sum, name) => sum + 4 * this.#body.sizeOf(name), 0)
    let saved = 0
    const read = new Set<string>()
    const written = new Set<string>()
    for (const node of chain) {
      const inputs = this.#valuesOf(node)
      saved += NODE + bytes([...inputs, ...node.outputs]) / BYTES
      if (this.#kindOf(node) === 'sum') saved -= STAGES
      if (this.#kindOf(node) === 'weighted') saved += this.#savedProducts(node) / MULTIPLICATIONS
      for (const name of inputs.map(input => this.#body.baseOf(input)))
        if (!chain.has(this.#body.producerOf(name)!)) read.add(name)
      for (const name of node.outputs)
        if (this.#body.realReadersOf(name).some(reader => !chain.has(reader))) written.add(name)
    }
    const ways = [...written].filter(this.#isLarge).length
    return saved - DETOUR * Math.max(1, ways) - bytes([...read, ...written]) / BYTES
  }

  #savedProducts(node: OnnxNode): number {
    const { rows, values } = weightsOf(node, this.#body)!
    const zeros = values.filter(weight => weight === 0).length
    return (zeros / rows) * this.#body.sizeOf(node.outputs[0]!)
  }

  /** Small nodes on the way from kernels to kernels: without them, each way would be a detour. */
  #between(): OnnxNode[] {
    const small = this.#body.nodes.filter(node => !this.#chosen.has(node) && this.#kindOf(node))
    const after = new Set<OnnxNode>()
    for (const node of small)
      if (
        this.#valuesOf(node).some(name => {
          const producer = this.#body.producerOf(this.#body.baseOf(name))
          return producer && (this.#chosen.has(producer) || after.has(producer))
        })
      )
        after.add(node)
    const before = new Set<OnnxNode>()
    for (const node of small.toReversed())
      if (
        node.outputs
          .flatMap(name => this.#body.realReadersOf(name))
          .some(reader => this.#chosen.has(reader) || before.has(reader))
      )
        before.add(node)
    // To repeat a value costs a kernel nothing.
    const isFree = ({ op }: OnnxNode) => op === 'Tile' || op === 'Expand'
    return small.filter(node => before.has(node) && (after.has(node) || isFree(node)))
  }

  /**
   * The values that kernels write: what others read, sums, weighted rows that do not end in one other value, what a
   * larger value is computed from, and what several kernels would compute again from more than one large value. With
   * each, the weighted rows that are computed within its kernel.
   */
  roots(needed: ReadonlySet<string>): ReadonlyMap<string, readonly string[]> {
    const nodes = this.#body.nodes.filter(node => this.#chosen.has(node))
    const names = nodes.flatMap(node => node.outputs.map(name => ({ name, node })))
    const roots = new Set(
      names.filter(({ name, node }) => this.#isRoot(name, node, needed)).map(({ name }) => name),
    )
    const futures = this.#futuresOf(names.toReversed(), roots)
    const sources = new Map<string, ReadonlySet<string>>()
    for (const { name, node } of names) {
      const { roots: after, ways } = futures.get(name)!
      const from = this.#sourcesOf(node, roots, sources)
      sources.set(name, from)
      // What passes through one value further on can be written there.
      if (this.#isLarge(name) && ways.size === 1 && from.size > 1 && after.size > 1) roots.add(name)
    }
    const within = new Map<string, string[]>()
    for (const { name, node } of names) {
      const end = this.#chosen.get(node) === 'weighted' ? this.#endOf(name, roots, needed) : undefined
      if (end === undefined || this.#apart.has(name)) continue
      roots.delete(name)
      within.set(end, [...(within.get(end) ?? []), name])
    }
    return new Map([...roots].map(name => [name, within.get(name) ?? []]))
  }

  /** The value that another becomes, element by element, if it becomes nothing else. */
  #endOf(name: string, roots: ReadonlySet<string>, needed: ReadonlySet<string>): string | undefined {
    const [reader, ...others] = this.#body.realReadersOf(name)
    if (!reader || others.length > 0 || this.#body.isAmong(needed, name)) return undefined
    const [after] = reader.outputs as [string]
    const isAlike =
      this.#chosen.get(reader) === 'elementwise' && this.#body.sizeOf(after) === this.#body.sizeOf(name)
    if (!isAlike) return undefined
    return roots.has(after) ? after : this.#endOf(after, roots, needed)
  }

  /** What becomes of each value; the last of them first. */
  #futuresOf(
    names: readonly { readonly name: string }[],
    roots: ReadonlySet<string>,
  ): ReadonlyMap<string, Future> {
    const futures = new Map<string, Future>()
    for (const { name } of names) {
      const readers = this.#body.realReadersOf(name).flatMap(({ outputs }) => outputs)
      const after = readers.flatMap(value =>
        roots.has(value) ? value : [...(futures.get(value)?.roots ?? [])],
      )
      const ways = roots.has(name) ? [] : readers.map(value => futures.get(value)!.ways)
      const common = ways.length === 0 ? new Set<string>() : ways.reduce((a, b) => a.intersection(b))
      futures.set(name, { roots: new Set(after), ways: new Set([name, ...common]) })
    }
    return futures
  }

  #isRoot(name: string, node: OnnxNode, needed: ReadonlySet<string>): boolean {
    const kind = this.#chosen.get(node)
    if (kind === 'sum' || kind === 'weighted' || kind === 'turn' || this.#body.isAmong(needed, name))
      return true
    // Where a value is transposed, it is read at other places than where it is computed.
    const isWithin = (reader: OnnxNode) => this.#chosen.has(reader) && this.#chosen.get(reader) !== 'turn'
    return this.#body
      .realReadersOf(name)
      .some(reader => !isWithin(reader) || (kind !== 'move' && this.#isSmallSourceOf(name, reader)))
  }

  #isSmallSourceOf(name: string, reader: OnnxNode): boolean {
    return !this.#isLarge(name) && this.#body.sizeOf(reader.outputs[0]!) > this.#body.sizeOf(name)
  }

  /** The large values in memory that a node's value is computed from. */
  #sourcesOf(
    node: OnnxNode,
    roots: ReadonlySet<string>,
    known: ReadonlyMap<string, ReadonlySet<string>>,
  ): Set<string> {
    const sources = this.#valuesOf(node)
      .map(name => this.#body.baseOf(name))
      .filter(this.#isLarge)
    return new Set(sources.flatMap(name => (roots.has(name) ? name : [...(known.get(name) ?? [name])])))
  }
}

/** Whether a node transposes a matrix of whole vectors. */
function isTurn({ op, inputs, attributes }: OnnxNode, body: StepBody): boolean {
  return (
    op === 'Transpose' &&
    intsOf(attributes.perm)?.join() === '1,0' &&
    body.typeOf(inputs[0]!).shape.every(extent => extent % LANES === 0)
  )
}

/** What becomes of a value in kernels. */
interface Future {
  /** The next values that are written and computed from it. */
  readonly roots: ReadonlySet<string>
  /** Values that everything passes through that is computed from it; itself among them. */
  readonly ways: ReadonlySet<string>
}
