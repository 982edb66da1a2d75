/**
 * How a program that is a Loop of steps, of a training or of an evaluation, runs step by step: ONNX Runtime computes
 * the products, and what goes element by element is one pass over memory for many nodes.
 */
import type { OnnxGraph, OnnxModel, OnnxNode, ValueInfo } from '../../onnx/model.ts'
import { type ValueType, valuesOf } from '../../onnx/shapes.ts'
import { LANES } from './access.ts'
import { type StatePiece, type StepGiven, type StepRow, stepGiven } from './given.ts'
import type { Kernel } from './kernel.ts'
import { partsOf, strideOfParts } from './partial-sums.ts'
import { BLOCKS } from './pass-kernels.ts'
import { type Crew, type Phase, phasesOf } from './phases.ts'
import { smallStep } from './small-step.ts'
import { EXTENTS, neededFor, StepBody } from './step-body.ts'
import { isKernel, namesReadBy, namesWrittenBy, type Task } from './task.ts'
import { turnedFactors, turnedName, withTurned } from './turned.ts'
import { Updates } from './updates.ts'

/** State that goes from step to step; float32. */
export interface CarriedState {
  /** Its name as an input of the loop and, with `next`, as an output. */
  readonly name: string
  readonly next: string
  /** In the step's graphs. */
  readonly input: ValueInfo
  /** The value after the step, where no kernel writes it: an output of a step's graph. */
  readonly copied: string | undefined
}

/** A part of a step. */
export type StepPhase =
  /** Inputs of the program, the number of the step, states and values of earlier phases are its inputs. */
  { readonly graph: OnnxGraph } | { readonly stages: readonly (readonly Task[])[] }

/** A value that one phase gives and later ones, or who reads the results, take. */
export interface StepValue extends ValueType {
  readonly name: string
  /** The number of the phase that gives it. */
  readonly phase: number
  /** Moments, both included: a graph that ONNX Runtime runs takes one, and so does a stage. */
  readonly from: number
  readonly to: number
}

export interface StepPlan {
  readonly inputs: readonly ValueInfo[]
  readonly outputs: readonly ValueInfo[]
  /** From the program's inputs to states that no input is by itself. */
  readonly begin: OnnxGraph
  readonly phases: readonly StepPhase[]
  /** Whether ONNX Runtime is to run its graphs by one thread, since tasks are nearly all of a step. */
  readonly isSmall: boolean
  readonly values: readonly StepValue[]
  /** From the last states (`next`) to outputs that no state is by itself. */
  readonly end: OnnxGraph
  /** The program's input that says how many steps a run makes. */
  readonly count: string
  readonly iteration: string
  readonly condition: string
  readonly states: readonly CarriedState[]
  /** Values of the step, and outputs of the program, which has them stacked. */
  readonly perStep: readonly { readonly value: string; readonly output: string }[]
  readonly rows: readonly StepRow[]
  readonly pieces: readonly StatePiece[]
  /** Inputs of the program that tasks read, but for the data. */
  readonly taskInputs: readonly ValueInfo[]
  /** Names of inputs whose extents only a run knows. */
  readonly data: ReadonlySet<string>
}

/** The loop of steps that a program is. */
interface StepLoop {
  /** The program's, in which what steps are given are inputs too. */
  readonly graph: OnnxGraph
  readonly programInputs: readonly ValueInfo[]
  readonly given: StepGiven
  /** The place of its node in the graph. */
  readonly at: number
  readonly loop: OnnxNode
}

/**
 * The plan of a program; undefined where the program is no such loop, or has nothing for tasks.
 *
 * @throws FoveaError at an operator whose shape is not known
 */
export function planSteps({ graph }: OnnxModel, crew: Crew): StepPlan | undefined {
  const at = graph.nodes.findIndex(({ op }) => op === 'Loop')
  const loop = graph.nodes[at]
  const attribute = loop?.attributes.body
  if (!loop || !attribute || !('graph' in attribute)) return undefined
  if (!isPlain(graph, loop, attribute.graph, at)) return undefined
  const given = stepGiven(graph, attribute.graph)
  const values = [...given.rows, ...given.pieces].map(({ value }) => value)
  const inputs = [...graph.inputs, ...values]
  const steps = { graph: { ...graph, inputs }, programInputs: graph.inputs, given, at, loop }
  const plainBody = bodyOf(steps, given.body)
  let factors = turnedFactors(plainBody)
  for (;;) {
    const turnedGraph = withTurned(given.body, factors)
    const body = factors.size > 0 ? bodyOf(steps, turnedGraph) : plainBody
    const plan = planOf(steps, turnedGraph, body, crew)
    const kernels = tasksOf(plan?.phases ?? []).filter(isKernel)
    const written = new Set(kernels.flatMap(namesWrittenBy))
    const turned = new Set([...factors].filter(name => written.has(turnedName(name))))
    if (turned.size === factors.size) return plan
    factors = turned
  }
}

const bodyOf = ({ graph, loop, given }: StepLoop, body: OnnxGraph): StepBody =>
  new StepBody(
    graph,
    body,
    body.inputs.slice(2),
    body.outputs.slice(1, loop.inputs.length - 1).map(({ name }) => name),
    given.pieces,
  )

/** With this graph as the loop's. */
function planOf(
  { graph, programInputs, given: { rows, pieces }, at, loop }: StepLoop,
  loopBody: OnnxGraph,
  body: StepBody,
  crew: Crew,
): StepPlan | undefined {
  const { states: inputs, next } = body
  const names = loop.inputs.slice(2)
  const results = loopBody.outputs.slice(1).map(({ name }) => name)
  const updates = new Updates(body)
  const lastKernels = updates.kernels()
  const written = new Set(lastKernels.flatMap(namesWrittenBy))
  const states = names.map((name, i): CarriedState => {
    const input = inputs[i]!
    return { name, next: loop.outputs[i]!, input, copied: written.has(input.name) ? undefined : next[i]! }
  })
  const perStep = results
    .slice(names.length)
    .map((value, i) => ({ value, output: loop.outputs[names.length + i]! }))
  const isOfStep = (name: string) => body.producerOf(name) !== undefined
  const needed = new Set([
    ...perStep.map(({ value }) => value),
    ...states.flatMap(({ copied }) => copied ?? []),
    ...lastKernels.flatMap(namesReadBy).filter(name => body.producerOf(name)),
    ...updates.late.flatMap(({ inputs }) => inputs.map(name => body.baseOf(name))).filter(isOfStep),
  ])
  const { phases: firstPhases, extra } = phasesOf(body, updates, needed, crew)
  const small = smallStep(body, updates, firstPhases, needed, crew)
  for (const [name, parts] of small?.sums ?? [])
    extra.set(partsOf(name), parts * strideOfParts(body.sizeOf(name)))
  const phases = small
    ? withUpdates(body, small.phases, updates.kernels(small.sums), updates.late)
    : withUpdates(body, firstPhases, lastKernels, updates.late)
  if (!phases.some(phase => 'stages' in phase)) return undefined
  for (const { blocks } of updates.sums.values()) extra.set(blocks, BLOCKS * LANES)
  // What nodes are in phases: of a sum, what is left to do.
  const inPhase = (node: OnnxNode) => updates.sums.get(node)?.node ?? node
  const values = valuesBetween(body, phases, needed, extra, inPhase)
  const isGiven = (name: string) => values.some(value => value.name === name)
  // One value that is several things, or one whose shape nobody knows yet, is left to the whole loop.
  const isPlanned =
    perStep.every(({ value }) => isGiven(value)) &&
    states.every(({ copied }) => copied === undefined || isGiven(copied)) &&
    values.every(({ name }) => extra.has(name) || body.isOfOneShape(name))
  if (!isPlanned) return undefined
  const known = valuesOf(graph, EXTENTS).types
  const whole = { ...loopBody, initializers: [...graph.initializers, ...loopBody.initializers] }
  const allInputs = [...loopBody.inputs, ...graph.inputs]
  const stepPhases = phases.map((phase, i): StepPhase => {
    if ('stages' in phase) return phase
    const own = new Set(phase.nodes)
    const part = body.nodes.filter(node => own.has(node) || body.isAlias(node)).map(inPhase)
    // What is an earlier value in another shape is made again.
    const made = new Set(part.flatMap(({ outputs }) => outputs))
    const earlier = values.filter(({ name, phase: by }) => by !== i && !made.has(name))
    return {
      graph: partOf(
        `step/${i}`,
        whole,
        part,
        [...allInputs, ...earlier],
        values.filter(value => value.phase === i),
      ),
    }
  })
  const read = new Set(tasksOf(phases).flatMap(namesReadBy))
  const data = new Set(graph.inputs.flatMap(({ name }) => (body.isOfFixedSize(name) ? [] : name)))
  return {
    inputs: programInputs,
    outputs: graph.outputs,
    begin: partOf('begin', graph, graph.nodes.slice(0, at), programInputs, [
      ...states.flatMap(({ name, input }) => (known.has(name) ? [] : [{ ...input, name }])),
    ]),
    phases: stepPhases,
    isSmall: small !== undefined,
    values,
    end: partOf(
      'end',
      graph,
      graph.nodes.slice(at + 1),
      [...programInputs, ...states.map(({ next: name, input }) => ({ ...input, name }))],
      graph.outputs.filter(({ name }) => !loop.outputs.includes(name)),
    ),
    count: loop.inputs[0]!,
    iteration: loopBody.inputs[0]!.name,
    condition: loopBody.inputs[1]!.name,
    states,
    perStep,
    rows,
    pieces,
    taskInputs: programInputs.filter(({ name }) => read.has(name) && !data.has(name)),
    data,
  }
}

/** The tasks of all phases, in their order. */
export const tasksOf = (phases: readonly (Phase | StepPhase)[]): Task[] =>
  phases.flatMap(phase => ('stages' in phase ? phase.stages.flat() : []))

/**
 * Updates are the last stage: they write over the states that all others read, but for what comes after them. Tasks
 * that neither read those nor make what updates read run beside them.
 */
function withUpdates(
  body: StepBody,
  phases: readonly Phase[],
  updates: readonly Kernel[],
  late: readonly OnnxNode[],
): Phase[] {
  if (updates.length === 0) return [...phases]
  const last = phases.at(-1)
  const end: Phase[] = late.length > 0 ? [{ nodes: late }] : []
  if (!last || !('stages' in last)) return [...phases, { stages: [updates] }, ...end]
  const beside = last.stages.at(-1)!
  const read = new Set(updates.flatMap(namesReadBy))
  const written = new Set(updates.flatMap(namesWrittenBy))
  const isApart = (task: Task) =>
    !namesReadBy(task).some(name => written.has(body.stateOf(name) ?? '')) &&
    !namesWrittenBy(task).some(name => read.has(name))
  const stages = beside.every(isApart)
    ? [...last.stages.slice(0, -1), [...beside, ...updates]]
    : [...last.stages, updates]
  return [...phases.slice(0, -1), { stages }, ...end]
}

/** What phases and stages give to others, with the first and the last moment of each. */
function valuesBetween(
  body: StepBody,
  phases: readonly Phase[],
  needed: ReadonlySet<string>,
  extra: ReadonlyMap<string, number>,
  inPhase: (node: OnnxNode) => OnnxNode,
): StepValue[] {
  const from = new Map<string, { readonly phase: number; readonly moment: number }>()
  const to = new Map<string, number>()
  let moment = 0
  const read = (name: string) => {
    if (from.has(name)) to.set(name, moment)
  }
  for (const [i, phase] of phases.entries()) {
    if ('stages' in phase) {
      for (const tasks of phase.stages) {
        for (const name of tasks.flatMap(namesReadBy)) read(name)
        // Even where nobody reads it: of a split nobody may take the part that it is in.
        for (const name of tasks.flatMap(namesWrittenBy))
          if (!body.isState(name)) {
            if (!from.has(name)) from.set(name, { phase: i, moment })
            to.set(name, moment)
          }
        moment++
      }
      continue
    }
    for (const node of phase.nodes) for (const name of node.outputs) from.set(name, { phase: i, moment })
    for (const node of phase.nodes.map(inPhase))
      for (const name of node.inputs.map(input => body.baseOf(input)))
        if (from.get(name)?.phase !== i) read(name)
    moment++
  }
  for (const name of needed) read(name)
  return [...to].map(([name, last]) => {
    const values = extra.get(name)
    const type: ValueType = values === undefined ? body.typeOf(name) : { dtype: 'float32', shape: [values] }
    const { phase, moment: first } = from.get(name)!
    return { name, ...type, phase, from: first, to: last }
  })
}

/** Whether the loop is one of steps: their number is given, and the states, if there are any, are of fixed shapes. */
function isPlain(graph: OnnxGraph, loop: OnnxNode, body: OnnxGraph, at: number): boolean {
  const isInput = (name: string) => graph.inputs.some(input => input.name === name)
  const first = graph.nodes.slice(0, at)
  const before = new Set(first.flatMap(({ outputs }) => outputs))
  const after = graph.nodes.slice(at + 1)
  const states = loop.inputs.slice(2)
  // Inputs that become states are no longer there.
  const begun = new Set([...states, ...first.flatMap(({ inputs }) => inputs)])
  const last = new Set([
    ...[...loop.outputs, ...after.flatMap(({ outputs }) => outputs)],
    ...graph.initializers.map(({ name }) => name),
    ...graph.inputs.map(({ name }) => name).filter(name => !begun.has(name)),
  ])
  const always = body.nodes.find(({ outputs }) => outputs.includes(body.outputs[0]!.name))
  return (
    graph.nodes.filter(({ op }) => op === 'Loop').length === 1 &&
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
    // What comes before the loop makes states, and nothing else; what comes after it reads what is still there.
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
  const needed = neededFor(outputs, nodes)
  return {
    name,
    nodes: needed.nodes,
    initializers: initializers.filter(initializer => needed.names.has(initializer.name)),
    inputs: inputs.filter(input => needed.names.has(input.name)),
    outputs,
  }
}
