/**
 * The nodes of a step that go element by element and end in states, as kernels that write the states; and the sums over
 * states that penalties are, which those kernels make on their way.
 */
import { intOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { type Access, LANES } from './access.ts'
import { isElementwise, type Kernel, type KernelStep, type Operand, operandsOf, stepsOf } from './kernel.ts'
import { partsOf, strideOfParts } from './partial-sums.ts'
import { BLOCKS, blocksOf } from './pass-kernels.ts'
import { joinedByNames, type StepBody } from './step-body.ts'

/** Values of a state below which its sum is made as soon by itself. */
const LEAST_SUMMED = 65_536

/** A sum over a state, by blocks that a kernel makes: what is left to do is to add them up. */
export interface StateSum {
  readonly state: string
  readonly blocks: string
  /** Adds them up. */
  readonly node: OnnxNode
}

/** What is summed. */
const summed: Readonly<Record<string, (value: Operand) => KernelStep>> = {
  ReduceSumSquare: value => ({ op: 'Mul', operands: [value, value] }),
  ReduceL1: value => ({ op: 'Abs', operands: [value] }),
}

export class Updates {
  readonly #body: StepBody
  readonly #nodes = new Set<OnnxNode>()
  /** By the nodes that they stand for. */
  readonly sums: ReadonlyMap<OnnxNode, StateSum>
  /** Nodes that come after the updates, in their order: those sums, and what is computed from them. */
  readonly late: readonly OnnxNode[]

  constructor(body: StepBody) {
    this.#body = body
    this.#choose()
    const sums = new Map(body.nodes.flatMap(node => this.#sumOf(node) ?? []))
    const late = this.#after(new Set(sums.keys()))
    this.sums = late ? sums : new Map()
    this.late = late ?? []
  }

  /** Whether a node is part of an update, or comes after them. */
  has(node: OnnxNode): boolean {
    return this.#nodes.has(node) || this.late.includes(node)
  }

  /** Whether a node is part of an update. */
  updates(node: OnnxNode): boolean {
    return this.#nodes.has(node)
  }

  /** @param parts of values that are read as the sums of so many: see partial-sums.ts */
  kernels(parts: ReadonlyMap<string, number> = new Map()): Kernel[] {
    return this.#groups().map((nodes, i) => this.#kernel(nodes, i, parts))
  }

  /** The sum of squares or magnitudes of a large state that a kernel updates. */
  #sumOf(node: OnnxNode): [OnnxNode, StateSum][] | undefined {
    const { op, name, inputs, outputs, attributes } = node
    const state = this.#body.baseOf(inputs[0] ?? '')
    const after = this.#body.next[this.#body.states.findIndex(own => own.name === state)]
    const isUpdated = after !== undefined && this.#nodes.has(this.#body.producerOf(after)!)
    const size = isUpdated ? this.#body.sizeOf(state) : 0
    const isOfAll = inputs.length === 1 && intOf(attributes.keepdims, 1) === 0
    if (!(op in summed) || !isOfAll || size < LEAST_SUMMED || size % (BLOCKS * LANES) !== 0) return undefined
    const blocks = blocksOf(outputs[0]!)
    const adding: OnnxNode = {
      op: 'ReduceSum',
      ...(name !== undefined && { name: name.replace(/[^/]*$/, own => `ReduceSum of ${own}`) }),
      inputs: [blocks],
      outputs,
      attributes: { keepdims: { int: 0 } },
    }
    return [[node, { state, blocks, node: adding }]]
  }

  /** The nodes that are computed from some; undefined where they cannot come after the updates. */
  #after(sums: ReadonlySet<OnnxNode>): OnnxNode[] | undefined {
    const late = new Set<OnnxNode>()
    for (const node of this.#body.nodes)
      if (sums.has(node) || node.inputs.some(name => late.has(this.#body.producerOf(name)!))) late.add(node)
    const isWritten = (name: string) => this.#body.stateOf(name) !== undefined
    const canWait = (node: OnnxNode) =>
      sums.has(node) ||
      (!this.#nodes.has(node) &&
        !node.inputs.some(isWritten) &&
        !node.outputs.some(name => this.#body.next.includes(name)))
    return [...late].every(canWait) ? [...late] : undefined
  }

  /** A node is computed by a kernel where nothing else needs it: backwards from the states. */
  #choose(): void {
    const states = new Set(this.#body.next)
    for (const node of this.#body.nodes.toReversed()) {
      const [value] = node.outputs as [string]
      const by = this.#body.readersOf(value)
      const isWanted = states.has(value) || by.length > 0
      const isFree =
        (states.has(value) || !this.#body.outputs.has(value)) && by.every(reader => this.#nodes.has(reader))
      if (isWanted && isFree && this.#fits(node)) this.#nodes.add(node)
    }
  }

  /**
   * Whether a kernel can compute a node: float32, each operand a scalar or as large as the result, and no piece of a
   * state that another may be writing.
   */
  #fits(node: OnnxNode): boolean {
    const size = this.#body.sizeOf(node.outputs[0]!)
    return (
      isElementwise(node) &&
      this.#body.isFloat(node.outputs[0]!) &&
      size > 1 &&
      operandsOf(node).every(name => {
        const fits = this.#body.isFloat(name) && [1, size].includes(this.#body.sizeOf(name))
        const isGiven = this.#body.isState(name) || this.#body.producerOf(name)
        const isKnown = this.#body.scalarConstant(name) !== undefined || this.#body.isOfFixedSize(name)
        return fits && !this.#body.isPiece(name) && (isGiven || isKnown)
      })
    )
  }

  /** Nodes that share a value or a state that one of them writes run in one pass. */
  #groups(): OnnxNode[][] {
    const { states, next } = this.#body
    const own = this.#body.nodes.filter(node => this.#nodes.has(node))
    const groups = joinedByNames(own, node => {
      const size = this.#body.sizeOf(node.outputs[0]!)
      const shared = operandsOf(node).flatMap(name => {
        const producer = this.#body.producerOf(name)
        if (producer && this.#nodes.has(producer)) return name
        const base = this.#body.baseOf(name)
        return this.#body.isState(base) && this.#body.sizeOf(base) === size ? base : []
      })
      // The state that this value becomes is read by whatever else updates it.
      const written = states.filter((_, i) => next[i] === node.outputs[0]).map(({ name }) => name)
      return new Set([...shared, ...written, ...node.outputs])
    })
    return groups.map(nodes => own.filter(node => nodes.has(node)))
  }

  #kernel(nodes: readonly OnnxNode[], index: number, parts: ReadonlyMap<string, number>): Kernel {
    const { states, next } = this.#body
    const written = states.flatMap(({ name }, i) =>
      nodes.some(({ outputs }) => outputs[0] === next[i]) ? name : [],
    )
    const own = [...this.sums].filter(([, { state }]) => written.includes(state))
    const size = this.#body.sizeOf(nodes[0]!.outputs[0]!)
    const loops = own.length > 0 ? [BLOCKS, size / BLOCKS / LANES] : [Math.ceil(size / LANES)]
    const each: Access = {
      offset: 0,
      strides: own.length > 0 ? [size / BLOCKS, LANES] : [LANES],
      lanes: 1,
    }
    const one: Access = { offset: 0, strides: loops.map(() => 0), lanes: 0 }
    const steps: KernelStep[] = []
    const places = new Map<string, number>()
    const read = (tensor: string): number => {
      const count = parts.get(tensor)
      if (count === undefined) return steps.push({ op: 'Identity', operands: [{ tensor, at: each }] }) - 1
      for (let part = 0; part < count; part++) {
        const at = { ...each, offset: part * strideOfParts(size) }
        const own = { tensor: partsOf(tensor), at }
        const sum = { step: steps.length - 1 }
        steps.push(part === 0 ? { op: 'Identity', operands: [own] } : { op: 'Add', operands: [sum, own] })
      }
      return steps.length - 1
    }
    const operand = (name: string): Operand => {
      const tensor = this.#body.baseOf(name)
      const place = places.get(tensor)
      if (place !== undefined) return { step: place }
      const constant = this.#body.scalarConstant(name)
      if (constant !== undefined) return { constant }
      if (this.#body.sizeOf(name) === 1) return { tensor, at: one }
      // One step, so that what is used twice is read once.
      const step = read(tensor)
      places.set(tensor, step)
      return { step }
    }
    for (const node of nodes) {
      const operands = operandsOf(node).map(operand)
      steps.push(...stepsOf(node, operands, steps.length))
      places.set(node.outputs[0]!, steps.length - 1)
    }
    const stores = states.flatMap(({ name }, i) => {
      return written.includes(name) ? [{ tensor: name, at: each, step: places.get(next[i]!)! }] : []
    })
    const sums = own.map(([{ op }, { state, blocks }]) => {
      steps.push(summed[op]!(operand(state)))
      const at: Access = { offset: 0, strides: [LANES, 0], lanes: 1 }
      return { tensor: blocks, at, step: steps.length - 1 }
    })
    // By what becomes the state: the first nodes may be a penalty's, which are backward.
    const stored = nodes.find(({ outputs }) => next.includes(outputs[0]!))
    const [, origin = ''] = /^(.*\/)?[^/]*$/.exec(stored?.name ?? '')!
    return { name: `${origin}Update_${index}`, loops, steps, stores, sums, updates: true }
  }
}
