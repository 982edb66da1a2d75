/**
 * Steps so small that threads that share each node would wait for each other longer than they work: rows of the
 * minibatch go from the first node to the last by a thread of their own, which makes sums over its rows too, such as
 * gradients of weights: see partial-sums.ts. What else is of all rows is shared node by node: each is one thread's.
 */
import { intOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import {
  NODE_OPERATIONS,
  operationsOf,
  type Partition,
  partedGraph,
  sumOfOperations,
} from './parted-graph.ts'
import { partialSums } from './partial-sums.ts'
import type { Crew, Phase } from './phases.ts'
import { type Role, rolesOf } from './roles.ts'
import { MOST_THREADS } from './share.ts'
import type { StepBody } from './step-body.ts'
import { namesReadBy, namesWrittenBy, type Task } from './task.ts'
import type { Updates } from './updates.ts'
import { isProduct } from './weights.ts'

/** Operations on vectors above which nodes are worth the threads' waiting for each other: about a millisecond's. */
const MOST_OPERATIONS = 5_000_000
/** Operations of products by rows below which threads would wait longer for each other than they save. */
const LEAST_BY_ROWS = 60_000
/** Operations of a product above which threads had better share it than leave it to one of them. */
const MOST_OF_ONE = 100_000
/** Rows of a part below which a product takes more time for what all parts read, the right matrix, than for its rows. */
const LEAST_ROWS = 8
/** Operations of a product over the minibatch that is worth a pass to cut a matrix. */
const LEAST_CUT = 60_000
/** Tasks of less are run together: to run one takes two microseconds beside its nodes. */
const LEAST_TASK = 15_000
/** Tasks of more wait for each other before what reads all of them. */
const MOST_JOINED = 50_000

/** Nodes that one thread runs. */
interface Single {
  readonly nodes: OnnxNode[]
  work: number
}

interface SmallStage {
  readonly kernels: Task[]
  /** Nodes that run part by part, in one list where they are not measured by themselves. */
  readonly inParts: OnnxNode[][]
  readonly singles: Single[]
}

/** Where a value is made. */
interface Place {
  readonly stage: number
  /** Whether it is made part by part, rows by rows: not by kernels. */
  readonly isByRows: boolean
  /** Undefined: it is not one thread's. */
  readonly single?: Single
}

/** Thrown where a node reads the data and what tasks make: it can come neither before them nor among them. */
class BoundToData extends Error {}

export interface SmallPhases {
  readonly phases: Phase[]
  /** How many sums each of these values is, which updates are to add up: see partial-sums.ts. */
  readonly sums: ReadonlyMap<string, number>
}

/**
 * The phases of a small step: what takes the numbers of the minibatch's images, and one phase of tasks. Undefined where
 * the step is not small, or most of it does not fall into rows.
 *
 * @param needed values of the step that are read after it
 */
export function smallStep(
  body: StepBody,
  updates: Updates,
  phases: readonly Phase[],
  needed: ReadonlySet<string>,
  crew: Crew,
): SmallPhases | undefined {
  const operations = (some: readonly OnnxNode[]) => sumOfOperations(some, body)
  const all = operations(body.nodes.filter(node => !updates.has(node)))
  const nodes = phases.flatMap(phase => ('nodes' in phase ? phase.nodes : []))
  if (all > MOST_OPERATIONS || !nodes.every(isPlain)) return undefined
  const products = nodes.filter(node => isProduct(node) && !isOverImages(node, body))
  const isWorth = (step: SmallStep) => {
    const inParts = (some: readonly OnnxNode[]) => operations(some.filter(node => step.rolesOf(node)))
    const isLong = (node: OnnxNode) =>
      isProduct(node) && !step.rolesOf(node) && operationsOf(node, body) > MOST_OF_ONE
    const isMost = [products, nodes].every(some => 2 * inParts(some) >= operations(some))
    return isMost && inParts(products) >= LEAST_BY_ROWS && !nodes.some(isLong)
  }
  const most = Math.min(crew.threads, MOST_THREADS)
  const steps = Array.from({ length: most - 1 }, (_, i) => most - i)
    .filter(parts => 2 * parts >= most)
    .map(parts => new SmallStep(body, updates, nodes, needed, crew, parts))
    .filter(isWorth)
  // Fewer parts that are of all products before more of some.
  const step = steps.find(one => products.every(node => one.rolesOf(node))) ?? steps[0]
  try {
    return step && { phases: step.arranged(phases), sums: step.sums }
  } catch (error) {
    if (!(error instanceof BoundToData)) throw error
    return undefined
  }
}

/** Whether the sums of a product go over the images of a minibatch, as those of the gradients of weights and biases do. */
const isOverImages = ({ inputs, attributes }: OnnxNode, body: StepBody): boolean =>
  intOf(attributes.transA, 0) === 1 || body.constant(inputs[0]!) !== undefined

/** Whether a node reads nothing but its inputs. */
const isPlain = ({ attributes }: OnnxNode): boolean =>
  Object.values(attributes).every(attribute => !('graph' in attribute))

class SmallStep {
  readonly #body: StepBody
  readonly #needed: ReadonlySet<string>
  readonly #isMeasured: boolean
  readonly #parts: number
  readonly #roles = new Map<OnnxNode, readonly Role[] | undefined>()
  readonly #sums: ReadonlyMap<OnnxNode, readonly Role[]>
  readonly #first: OnnxNode[] = []
  readonly #stages: SmallStage[] = []
  /** Of values that tasks make. */
  readonly #places = new Map<string, Place>()

  constructor(
    body: StepBody,
    updates: Updates,
    nodes: readonly OnnxNode[],
    needed: ReadonlySet<string>,
    { isMeasured }: Crew,
    parts: number,
  ) {
    this.#body = body
    this.#needed = needed
    this.#isMeasured = isMeasured
    this.#parts = parts
    const bound = nodes.filter(node => this.#isGiven(node))
    this.#sums = partialSums(body, updates, bound, parts)
  }

  /** By values: into how many sums they fall. */
  get sums(): ReadonlyMap<string, number> {
    const names = [...this.#sums.keys()].flatMap(({ outputs }) => outputs)
    return new Map(names.map(name => [name, this.#parts]))
  }

  /** Of a node whose rows fall into the parts. */
  rolesOf(node: OnnxNode): readonly Role[] | undefined {
    if (!this.#roles.has(node)) this.#roles.set(node, this.#findRoles(node))
    return this.#roles.get(node)
  }

  #findRoles(node: OnnxNode): readonly Role[] | undefined {
    const sums = this.#sums.get(node)
    if (sums) return sums
    if (!this.#isGiven(node)) return undefined
    const roles = rolesOf(node, this.#body)
    const isTooSmall = roles?.includes('columns')
      ? operationsOf(node, this.#body) < LEAST_CUT
      : isProduct(node) && this.#rowsOf(node.outputs[0]!) < LEAST_ROWS
    const parted = [...node.outputs, ...node.inputs.filter((_, i) => roles?.[i] === 'part')]
    const isInParts = (name: string) => Number.isInteger(this.#rowsOf(name))
    return roles && !isTooSmall && parted.every(isInParts) ? roles : undefined
  }

  /** Of a part. */
  #rowsOf(name: string): number {
    return (this.#body.typeOf(name).shape[0] ?? 1) / this.#parts
  }

  arranged(phases: readonly Phase[]): Phase[] {
    for (const phase of phases)
      if ('nodes' in phase) for (const node of phase.nodes) this.#place(node)
      else this.#placeKernels(phase.stages)
    const stages = this.#stages.map(stage => this.#tasksOf(stage))
    return [{ nodes: this.#first }, { stages }]
  }

  /** Whether a value has its place before a run: not the data, whose extents only a run knows. */
  #isBound(name: string): boolean {
    const base = this.#body.baseOf(name)
    return (
      this.#body.constant(base) !== undefined ||
      (this.#body.producerOf(base) !== undefined && this.#body.isOfOneShape(base)) ||
      this.#body.isState(base) ||
      this.#body.isOfFixedSize(base)
    )
  }

  /** Whether what a node reads has its place before a run, or is the data, which tasks are given for each. */
  #isGiven({ inputs }: OnnxNode): boolean {
    return inputs.every(name => this.#isBound(name) || this.#body.shapeOfData(name) !== undefined)
  }

  #place(node: OnnxNode): void {
    const inputs = node.inputs.filter(name => name !== '')
    const sources = inputs.flatMap(name => this.#places.get(this.#body.baseOf(name)) ?? [])
    const roles = this.rolesOf(node)
    if (!roles && (sources.length === 0 || !inputs.every(name => this.#isBound(name)))) {
      if (sources.length > 0) throw new BoundToData(node.name)
      this.#first.push(node)
      return
    }
    const place = roles ? this.#placeInParts(node, roles) : this.#placeSingle(node, sources)
    for (const name of node.outputs) this.#places.set(name, place)
  }

  #placeInParts(node: OnnxNode, roles: readonly Role[]): Place {
    const stage = node.inputs.reduce((latest, name, i) => {
      const place = this.#places.get(this.#body.baseOf(name))
      const isAlong = place?.isByRows && roles[i] === 'part' && !this.#isMeasured
      return place ? Math.max(latest, isAlong ? place.stage : place.stage + 1) : latest
    }, 0)
    const { inParts } = this.#stageAt(stage)
    if (inParts.length > 0 && !this.#isMeasured) inParts[0]!.push(node)
    else inParts.push([node])
    return { stage, isByRows: true }
  }

  #placeSingle(node: OnnxNode, sources: readonly Place[]): Place {
    const work = operationsOf(node, this.#body) + NODE_OPERATIONS
    const latest = Math.max(...sources.map(({ stage }) => stage))
    const last = sources.filter(({ stage }) => stage === latest)
    const singles = [...new Set(last.flatMap(({ single }) => single ?? []))]
    const total = singles.reduce((sum, single) => sum + single.work, work)
    const isAlong = last.every(({ single }) => single) && (singles.length === 1 || total < MOST_JOINED)
    if (!isAlong || this.#isMeasured) {
      const single = { nodes: [node], work }
      this.#stageAt(latest + 1).singles.push(single)
      return { stage: latest + 1, isByRows: false, single }
    }
    const [first, ...others] = singles as [Single, ...Single[]]
    const all = this.#stageAt(latest).singles
    const place = { stage: latest, isByRows: false, single: first }
    for (const other of others) {
      all.splice(all.indexOf(other), 1)
      first.nodes.push(...other.nodes)
      for (const name of other.nodes.flatMap(({ outputs }) => outputs)) this.#places.set(name, place)
    }
    first.nodes.push(node)
    first.work = total
    return place
  }

  /** As they follow one another, each where all that it reads is made. */
  #placeKernels(stages: readonly (readonly Task[])[]): void {
    let after = -1
    for (const tasks of stages) {
      const read = tasks
        .flatMap(namesReadBy)
        .map(name => this.#places.get(this.#body.baseOf(name))?.stage ?? -1)
      after = Math.max(after, ...read) + 1
      this.#stageAt(after).kernels.push(...tasks)
      for (const name of tasks.flatMap(namesWrittenBy))
        this.#places.set(name, { stage: after, isByRows: false })
    }
  }

  #stageAt(stage: number): SmallStage {
    while (this.#stages.length <= stage) this.#stages.push({ kernels: [], inParts: [], singles: [] })
    return this.#stages[stage]!
  }

  #tasksOf({ kernels, inParts, singles }: SmallStage): Task[] {
    return [
      ...kernels,
      ...inParts.map(nodes => this.#graphOf(nodes, this.#parts, node => this.rolesOf(node)!)),
      ...this.#together(singles).map(nodes =>
        this.#graphOf(nodes, 1, ({ inputs }) => inputs.map(() => 'part')),
      ),
    ]
  }

  /** The largest first, so that a thread that is done early finds something small; small ones as one. */
  #together(singles: readonly Single[]): OnnxNode[][] {
    if (this.#isMeasured) return singles.map(({ nodes }) => nodes)
    const sorted = singles.toSorted((a, b) => b.work - a.work)
    const together: Single[] = []
    for (const { nodes, work } of sorted) {
      const last = together.at(-1)
      if (last && last.work < LEAST_TASK) {
        last.nodes.push(...nodes)
        last.work += work
      } else together.push({ nodes: [...nodes], work })
    }
    return together.map(({ nodes }) => nodes)
  }

  #graphOf(nodes: readonly OnnxNode[], parts: number, rolesOf: Partition['rolesOf']): Task {
    const own = new Set(nodes)
    const isRead = (name: string) => this.#body.isReadBeyond(name, own, this.#needed)
    const partition = { parts, rolesOf, sums: this.#sums }
    return partedGraph(this.#body, nodes, partition, isRead)
  }
}
