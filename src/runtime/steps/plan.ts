/**
 * How a program that is a Loop of training steps runs step by step: ONNX Runtime computes what an update needs,
 * and each update, as far as it goes element by element, is one pass over memory instead of one for each node.
 */
import type { OnnxGraph, OnnxModel, OnnxNode, ValueInfo } from '../../onnx/model.ts'
import { typedNodes, type ValueType, valuesOf } from '../../onnx/shapes.ts'
import { sizeOf, toNumbers } from '../../util/host-tensor.ts'
import { isElementwise, type Kernel, type KernelStep, namesReadBy, type Operand, stepsOf } from './kernel.ts'

/** State that goes from step to step; float32. */
export interface CarriedState {
  /** Its name as an input of the loop and, with `next`, as an output. */
  readonly name: string
  readonly next: string
  /** In the step's graph. */
  readonly input: ValueInfo
  /** The value after the step, where no kernel writes it: an output of the step's graph. */
  readonly copied: string | undefined
}

export interface StepPlan {
  readonly inputs: readonly ValueInfo[]
  readonly outputs: readonly ValueInfo[]
  /** From the program's inputs to states that no input is by itself. */
  readonly begin: OnnxGraph
  /** One step: the number of the step and the states are inputs, and so are those of the program that it reads. */
  readonly step: OnnxGraph
  /** From the last states (`next`) to outputs that no state is by itself. */
  readonly end: OnnxGraph
  /** The program's input that says how many steps a run makes. */
  readonly count: string
  readonly iteration: string
  readonly condition: string
  readonly states: readonly CarriedState[]
  /** Outputs of the step's graph, and of the program, which has them stacked. */
  readonly perStep: readonly { readonly value: string; readonly output: string }[]
  readonly kernels: readonly Kernel[]
  /** Inputs of the program that kernels read. */
  readonly kernelInputs: readonly ValueInfo[]
}

/**
 * The plan of a program; undefined where the program is no such loop, or has nothing that kernels could update.
 *
 * @throws FoveaError at an operator whose shape is not known
 */
export function planSteps({ graph }: OnnxModel): StepPlan | undefined {
  const at = graph.nodes.findIndex(({ op }) => op === 'Loop')
  const loop = graph.nodes[at]
  const attribute = loop?.attributes.body
  if (!loop || !attribute || !('graph' in attribute)) return undefined
  const body = attribute.graph
  if (!isPlain(graph, loop, body, at)) return undefined
  const names = loop.inputs.slice(2)
  const inputs = body.inputs.slice(2)
  const results = body.outputs.slice(1).map(({ name }) => name)
  const next = results.slice(0, names.length)
  const fusion = new Fusion(graph, body, inputs, next)
  const kernels = fusion.kernels()
  if (kernels.length === 0) return undefined
  const states = names.map((name, i): CarriedState => {
    const input = inputs[i]!
    const isWritten = kernels.some(({ stores }) => stores.some(({ state }) => state === input.name))
    return { name, next: loop.outputs[i]!, input, copied: isWritten ? undefined : next[i]! }
  })
  const perStep = results
    .slice(names.length)
    .map((value, i) => ({ value, output: loop.outputs[names.length + i]! }))
  const needed = new Set([
    ...perStep.map(({ value }) => value),
    ...states.flatMap(({ copied }) => copied ?? []),
    ...kernels.flatMap(namesReadBy).filter(name => fusion.computes(name)),
  ])
  const known = valuesOf(graph, EXTENTS).types
  return {
    inputs: graph.inputs,
    outputs: graph.outputs,
    begin: partOf('begin', graph, graph.nodes.slice(0, at), graph.inputs, [
      ...states.flatMap(({ name, input }) => (known.has(name) ? [] : [{ ...input, name }])),
    ]),
    step: partOf(
      'step',
      { ...body, initializers: [...graph.initializers, ...body.initializers] },
      body.nodes,
      [...body.inputs, ...graph.inputs],
      [...needed].map(name => ({ name, ...fusion.typeOf(name) })),
    ),
    end: partOf(
      'end',
      graph,
      graph.nodes.slice(at + 1),
      states.map(({ next: name, input }) => ({ ...input, name })),
      graph.outputs.filter(({ name }) => !loop.outputs.includes(name)),
    ),
    count: loop.inputs[0]!,
    iteration: body.inputs[0]!.name,
    condition: body.inputs[1]!.name,
    states,
    perStep,
    kernels,
    kernelInputs: graph.inputs.filter(({ name }) =>
      kernels.some(kernel => namesReadBy(kernel).includes(name)),
    ),
  }
}

/** How many rows the data has, and how many steps a call makes, changes nothing in a step. */
const EXTENTS = { rows: 1, steps: 1 }

/** Whether the loop is one of training steps: their number is given, and the states are of fixed shapes. */
function isPlain(graph: OnnxGraph, loop: OnnxNode, body: OnnxGraph, at: number): boolean {
  const isInput = (name: string) => graph.inputs.some(input => input.name === name)
  const before = new Set(graph.nodes.slice(0, at).flatMap(({ outputs }) => outputs))
  const after = graph.nodes.slice(at + 1)
  const last = new Set([
    ...[...loop.outputs, ...after.flatMap(({ outputs }) => outputs)],
    ...graph.initializers.map(({ name }) => name),
  ])
  const always = body.nodes.find(({ outputs }) => outputs.includes(body.outputs[0]!.name))
  const states = loop.inputs.slice(2)
  return (
    graph.nodes.filter(({ op }) => op === 'Loop').length === 1 &&
    // An evaluation carries nothing from step to step.
    states.length > 0 &&
    isInput(loop.inputs[0]!) &&
    always?.op === 'Identity' &&
    always.inputs[0] === body.inputs[1]!.name &&
    states.every(name => isInput(name) || before.has(name)) &&
    body.inputs
      .slice(2)
      .every(
        ({ dtype, shape }) => dtype === 'float32' && shape?.every(extent => typeof extent === 'number'),
      ) &&
    graph.outputs.every(({ name, dtype }) => loop.outputs.includes(name) || dtype === 'float32') &&
    // What comes before the loop makes states, and nothing else; what comes after it reads what it left.
    new Set(states).size === states.length &&
    body.nodes.every(({ inputs }) => inputs.every(name => !before.has(name) && !states.includes(name))) &&
    after.every(({ inputs }) => inputs.every(name => name === '' || last.has(name)))
  )
}

/** The part of a graph that computes `outputs`: of `inputs` and initializers what it reads. */
function partOf(
  name: string,
  { initializers }: OnnxGraph,
  nodes: readonly OnnxNode[],
  inputs: readonly ValueInfo[],
  outputs: readonly ValueInfo[],
): OnnxGraph {
  const needed = new Set(outputs.map(output => output.name))
  const kept: OnnxNode[] = []
  for (const node of nodes.toReversed())
    if (node.outputs.some(output => needed.has(output))) {
      kept.unshift(node)
      for (const input of node.inputs) needed.add(input)
    }
  return {
    name,
    nodes: kept,
    initializers: initializers.filter(initializer => needed.has(initializer.name)),
    inputs: inputs.filter(input => needed.has(input.name)),
    outputs,
  }
}

/** Finds the nodes of a step that go element by element and end in states. */
class Fusion {
  readonly #body: OnnxGraph
  readonly #outer: readonly ValueInfo[]
  readonly #types: Map<string, ValueType>
  readonly #constants: ReadonlyMap<string, number>
  readonly #inputs: readonly ValueInfo[]
  /** The value of each state after the step. */
  readonly #next: readonly string[]
  readonly #producers: Map<string, OnnxNode>
  readonly #fused = new Set<OnnxNode>()

  constructor(graph: OnnxGraph, body: OnnxGraph, inputs: readonly ValueInfo[], next: readonly string[]) {
    this.#body = body
    this.#outer = graph.inputs
    this.#inputs = inputs
    this.#next = next
    const outer = valuesOf(graph, EXTENTS)
    this.#types = new Map([...outer.types, ...valuesOf(body, {}).types])
    for (const { node, outputs } of typedNodes(body, {}, outer))
      for (const [i, type] of outputs.entries()) this.#types.set(node.outputs[i]!, type)
    this.#constants = new Map(
      [...graph.initializers, ...body.initializers]
        .filter(({ tensor }) => tensor.dtype === 'float32' && sizeOf(tensor.shape) === 1)
        .map(({ name, tensor }) => [name, toNumbers(tensor)[0]!]),
    )
    this.#producers = new Map(body.nodes.flatMap(node => node.outputs.map(output => [output, node] as const)))
    this.#choose()
  }

  /** Whether a value is that of a node of the step. */
  computes(name: string): boolean {
    return this.#producers.has(name)
  }

  typeOf(name: string): ValueType {
    return this.#types.get(name)!
  }

  kernels(): Kernel[] {
    return this.#groups().map((nodes, i) => this.#kernel(nodes, i))
  }

  /** A node is computed by a kernel where nothing else needs it: backwards from the states. */
  #choose(): void {
    const outputs = new Set(this.#body.outputs.map(({ name }) => name))
    const states = new Set(this.#next)
    const readers = new Map<string, OnnxNode[]>()
    for (const node of this.#body.nodes)
      for (const input of node.inputs) readers.set(input, [...(readers.get(input) ?? []), node])
    for (const node of this.#body.nodes.toReversed()) {
      const [value] = node.outputs as [string]
      const by = readers.get(value) ?? []
      const isWanted = states.has(value) || by.length > 0
      const isFree = (states.has(value) || !outputs.has(value)) && by.every(reader => this.#fused.has(reader))
      if (isWanted && isFree && this.#fits(node)) this.#fused.add(node)
    }
  }

  /** Whether a kernel can compute a node: float32, each operand a scalar or as large as the result. */
  #fits(node: OnnxNode): boolean {
    const { dtype, shape } = this.typeOf(node.outputs[0]!)
    const size = sizeOf(shape)
    return (
      isElementwise(node) &&
      dtype === 'float32' &&
      size > 1 &&
      operandsOf(node).every(name => {
        const type = this.typeOf(name)
        const fits = type.dtype === 'float32' && [1, size].includes(sizeOf(type.shape))
        return fits && (!this.#isOuter(name) || this.#constants.has(name) || this.#isOfFixedSize(name))
      })
    )
  }

  /** Nodes that share a value or a state that one of them writes run in one pass. */
  #groups(): OnnxNode[][] {
    const groups: { readonly names: Set<string>; readonly nodes: Set<OnnxNode> }[] = []
    for (const node of this.#body.nodes) {
      if (!this.#fused.has(node)) continue
      const size = sizeOf(this.typeOf(node.outputs[0]!).shape)
      const shared = operandsOf(node).filter(
        name => this.#isFused(name) || (this.#isState(name) && sizeOf(this.typeOf(name).shape) === size),
      )
      // The state that this value becomes is read by whatever else updates it.
      const written = this.#inputs.filter((_, i) => this.#next[i] === node.outputs[0]).map(({ name }) => name)
      const names = new Set([...shared, ...written, ...node.outputs])
      const joined = groups.filter(group => !group.names.isDisjointFrom(names))
      for (const group of joined) groups.splice(groups.indexOf(group), 1)
      groups.push({
        names: joined.reduce((all, group) => all.union(group.names), names),
        nodes: joined.reduce((all, group) => all.union(group.nodes), new Set([node])),
      })
    }
    return groups.map(({ nodes }) => this.#body.nodes.filter(node => nodes.has(node)))
  }

  #isFused = (name: string): boolean => {
    const producer = this.#producers.get(name)
    return producer !== undefined && this.#fused.has(producer)
  }

  /** Neither a state nor computed in the step. */
  #isOuter = (name: string): boolean => !this.#isState(name) && !this.computes(name)

  /** Whether a name is that of an input of the program whose shape is known before it runs. */
  #isOfFixedSize = (name: string): boolean =>
    this.#outer.some(input => input.name === name && input.shape?.every(extent => typeof extent === 'number'))

  #isState = (name: string): boolean => this.#inputs.some(input => input.name === name)

  #kernel(nodes: readonly OnnxNode[], index: number): Kernel {
    const size = sizeOf(this.typeOf(nodes[0]!.outputs[0]!).shape)
    const places = new Map<string, number>()
    const operand = (name: string): Operand => {
      const place = places.get(name)
      if (place !== undefined) return { step: place }
      const constant = this.#constants.get(name)
      if (constant !== undefined) return { constant }
      return sizeOf(this.typeOf(name).shape) === 1 ? { scalar: name } : { tensor: name }
    }
    const steps: KernelStep[] = []
    for (const node of nodes) {
      steps.push(...stepsOf(node, operandsOf(node).map(operand), steps.length))
      places.set(node.outputs[0]!, steps.length - 1)
    }
    const stores = this.#inputs.flatMap(({ name }, i) => {
      const step = places.get(this.#next[i]!)
      return step === undefined ? [] : [{ state: name, step }]
    })
    // By what becomes the state: the first nodes may be a penalty's, which are backward.
    const stored = nodes.find(({ outputs }) => this.#next.includes(outputs[0]!))
    const [, origin = ''] = /^(.*\/)?[^/]*$/.exec(stored?.name ?? '')!
    return { name: `${origin}Update_${index}`, size, steps, stores }
  }
}

/** What a kernel computes with: not the shape that a `Reshape` is given. */
function operandsOf({ op, inputs }: OnnxNode): readonly string[] {
  return op === 'Reshape' ? inputs.slice(0, 1) : inputs
}
