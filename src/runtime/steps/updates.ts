/** The nodes of a step that go element by element and end in states, as kernels that write the states. */
import type { OnnxNode } from '../../onnx/model.ts'
import { type Access, LANES } from './access.ts'
import { isElementwise, type Kernel, type KernelStep, type Operand, operandsOf, stepsOf } from './kernel.ts'
import { joinedByNames, type StepBody } from './step-body.ts'

const [ONE, EACH]: readonly [Access, Access] = [
  { offset: 0, strides: [0], lanes: 0 },
  { offset: 0, strides: [LANES], lanes: 1 },
]

export class Updates {
  readonly #body: StepBody
  readonly #nodes = new Set<OnnxNode>()

  constructor(body: StepBody) {
    this.#body = body
    this.#choose()
  }

  has(node: OnnxNode): boolean {
    return this.#nodes.has(node)
  }

  kernels(): Kernel[] {
    return this.#groups().map((nodes, i) => this.#kernel(nodes, i))
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

  /** Whether a kernel can compute a node: float32, each operand a scalar or as large as the result. */
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
        return fits && (isGiven || isKnown)
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

  #kernel(nodes: readonly OnnxNode[], index: number): Kernel {
    const { states, next } = this.#body
    const places = new Map<string, number>()
    const operand = (name: string): Operand => {
      const place = places.get(name)
      if (place !== undefined) return { step: place }
      const constant = this.#body.scalarConstant(name)
      if (constant !== undefined) return { constant }
      return { tensor: this.#body.baseOf(name), at: this.#body.sizeOf(name) === 1 ? ONE : EACH }
    }
    const steps: KernelStep[] = []
    for (const node of nodes) {
      steps.push(...stepsOf(node, operandsOf(node).map(operand), steps.length))
      places.set(node.outputs[0]!, steps.length - 1)
    }
    const stores = states.flatMap(({ name }, i) => {
      const step = places.get(next[i]!)
      return step === undefined ? [] : [{ tensor: name, at: EACH, step }]
    })
    // By what becomes the state: the first nodes may be a penalty's, which are backward.
    const stored = nodes.find(({ outputs }) => next.includes(outputs[0]!))
    const [, origin = ''] = /^(.*\/)?[^/]*$/.exec(stored?.name ?? '')!
    const size = this.#body.sizeOf(nodes[0]!.outputs[0]!)
    return {
      name: `${origin}Update_${index}`,
      loops: [Math.ceil(size / LANES)],
      steps,
      stores,
      sums: [],
      updates: true,
    }
  }
}
