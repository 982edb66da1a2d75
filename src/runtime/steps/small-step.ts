/**
 * Steps so small that threads that share each node would wait for each other longer than they work: rows of the
 * minibatch go from the first node to the last by a thread of their own, and what is of all rows, such as gradients of
 * weights, is shared node by node: each is one thread's.
 */
import type { OnnxNode } from '../../onnx/model.ts'
import { bytesPerElement, sizeOf } from '../../util/host-tensor.ts'
import { operationsOf, type Partition, partedGraph } from './parted-graph.ts'
import type { Crew, Phase } from './phases.ts'
import { type Role, rolesByColumns, rolesOf } from './roles.ts'
import { MOST_THREADS } from './share.ts'
import type { StepBody } from './step-body.ts'
import { namesReadBy, namesWrittenBy, type Task } from './task.ts'
import type { Updates } from './updates.ts'
import { isProduct } from './weights.ts'

/** Operations on vectors above which nodes are worth the threads' waiting for each other: about a millisecond's. */
const MOST_OPERATIONS = 4_000_000
/** Operations of nodes by rows below which threads would wait longer for each other than they save. */
const LEAST_OPERATIONS = 60_000
/** What a node takes beside its own operations: half a microsecond. */
const NODE_OPERATIONS = 2_000
/** Tasks of less are run together: to run one takes two microseconds beside its nodes. */
const LEAST_TASK = 15_000
/** Tasks of more wait for each other before what reads all of them. */
const MOST_JOINED = 50_000

/** Parts begin at multiples of so many bytes: the bits of ONNX Runtime's sums depend on where they begin. */
const PART_BYTES = 16

/** Nodes that one thread runs. */
interface Single {
  readonly nodes: OnnxNode[]
  work: number
}

interface SmallStage {
  readonly kernels: Task[]
  /** Nodes that run by rows of the minibatch, one list where they are not measured by themselves. */
  readonly byRows: OnnxNode[][]
  readonly singles: Single[]
}

interface Place {
  readonly stage: number
  /** Undefined: its nodes run by rows, or it is of kernels. */
  readonly single?: Single
  readonly isByRows?: boolean
}

/** A node that a small step cannot run. */
class TooLate extends Error {}

/**
 * The phases of a small step: what needs the data, on which all else waits, and one phase of tasks. Undefined where
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
): Phase[] | undefined {
  const operations = (nodes: readonly OnnxNode[]) =>
    nodes.reduce((sum, node) => sum + operationsOf(node, body), 0)
  const all = operations(body.nodes.filter(node => !updates.has(node)))
  const nodes = phases.flatMap(phase => ('nodes' in phase ? phase.nodes : []))
  if (all > MOST_OPERATIONS || crew.threads > MOST_THREADS || !nodes.every(isPlain)) return undefined
  for (let parts = crew.threads; parts > 1; parts--) {
    const step = new SmallStep(body, nodes, needed, crew, parts)
    // Products over the minibatch fall into parts whether its images do or not.
    const ofImages = nodes.filter(node => isProduct(node) && !step.rolesOf(node)?.includes('columns'))
    const inParts = operations(ofImages.filter(node => step.rolesOf(node)))
    if (inParts < Math.max(LEAST_OPERATIONS, operations(ofImages) / 2)) continue
    try {
      return step.phases(phases)
    } catch (error) {
      if (!(error instanceof TooLate)) throw error
      return undefined
    }
  }
  return undefined
}

/** Whether a node reads nothing but its inputs. */
const isPlain = ({ attributes }: OnnxNode): boolean =>
  Object.values(attributes).every(attribute => !('graph' in attribute))

class SmallStep {
  readonly #body: StepBody
  readonly #needed: ReadonlySet<string>
  readonly #isMeasured: boolean
  readonly #parts: number
  readonly #roles = new Map<OnnxNode, readonly Role[] | undefined>()
  /** Products whose parts are columns. */
  readonly #columns = new Set<string>()
  /** What is no kernel's. */
  readonly #nodes: ReadonlySet<OnnxNode>
  readonly #first: OnnxNode[] = []
  readonly #stages: SmallStage[] = []
  /** Of values that tasks make. */
  readonly #places = new Map<string, Place>()

  constructor(
    body: StepBody,
    nodes: readonly OnnxNode[],
    needed: ReadonlySet<string>,
    { isMeasured }: Crew,
    parts: number,
  ) {
    this.#body = body
    this.#nodes = new Set(nodes)
    this.#needed = needed
    this.#isMeasured = isMeasured
    this.#parts = parts
  }

  /** Of a node whose rows fall into the parts. */
  rolesOf(node: OnnxNode): readonly Role[] | undefined {
    if (!this.#roles.has(node)) this.#roles.set(node, this.#findRoles(node))
    return this.#roles.get(node)
  }

  #findRoles(node: OnnxNode): readonly Role[] | undefined {
    if (!node.inputs.every(name => this.#isBound(name))) return undefined
    if (this.#isByColumns(node)) {
      this.#columns.add(node.outputs[0]!)
      return rolesByColumns(node, this.#body)
    }
    const roles = rolesOf(node, this.#body)
    // To take columns out of a matrix is a pass, and a call for each part.
    if (roles?.includes('columns') && operationsOf(node, this.#body) < LEAST_OPERATIONS) return undefined
    const parted = [...node.outputs, ...node.inputs.filter((_, i) => roles?.[i] === 'part')]
    const fallsIntoParts = (name: string) => {
      const { dtype, shape } = this.#body.typeOf(name)
      const bytes = (sizeOf(shape) * bytesPerElement[dtype]) / this.#parts
      return (shape[0] ?? 1) % this.#parts === 0 && bytes % PART_BYTES === 0
    }
    return roles && parted.every(fallsIntoParts) ? roles : undefined
  }

  /**
   * Whether parts of a product are best columns of it: where its weights are more than what it multiplies them with,
   * and lie row by column, each thread then reads none but those that it updates itself.
   */
  #isByColumns(node: OnnxNode): boolean {
    const [left, right] = node.inputs as [string, string]
    const [value] = node.outputs as [string]
    const [, columns = 0] = this.#body.typeOf(value).shape
    return (
      rolesByColumns(node, this.#body) !== undefined &&
      this.#body.isState(this.#body.baseOf(right)) &&
      this.#body.sizeOf(right) > this.#body.sizeOf(left) &&
      operationsOf(node, this.#body) >= LEAST_OPERATIONS &&
      ((columns / this.#parts) * 4) % PART_BYTES === 0 &&
      !this.#needed.has(value) &&
      this.#body.readersOf(value).every(reader => !this.#body.isAlias(reader) && this.#nodes.has(reader))
    )
  }

  phases(phases: readonly Phase[]): Phase[] {
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
      (this.#body.isOfFixedSize(base) && this.#body.isFloat(base))
    )
  }

  #place(node: OnnxNode): void {
    const inputs = node.inputs.filter(name => name !== '')
    const sources = inputs.flatMap(name => this.#places.get(this.#body.baseOf(name)) ?? [])
    const roles = this.rolesOf(node)
    if (!inputs.every(name => this.#isBound(name)) || (sources.length === 0 && !roles)) {
      if (sources.length > 0) throw new TooLate(node.name)
      this.#first.push(node)
      return
    }
    const place = roles ? this.#placeByRows(node, roles) : this.#placeSingle(node, sources)
    const isByRows = roles !== undefined && !this.#columns.has(node.outputs[0]!)
    for (const name of node.outputs) this.#places.set(name, { ...place, isByRows })
  }

  #placeByRows(node: OnnxNode, roles: readonly Role[]): Place {
    const stage = node.inputs.reduce((latest, name, i) => {
      const place = this.#places.get(this.#body.baseOf(name))
      const isAlong = place?.isByRows && roles[i] === 'part' && !this.#isMeasured
      return place ? Math.max(latest, isAlong ? place.stage : place.stage + 1) : latest
    }, 0)
    const { byRows } = this.#stageAt(stage)
    if (byRows.length > 0 && !this.#isMeasured) byRows[0]!.push(node)
    else byRows.push([node])
    return { stage }
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
      return { stage: latest + 1, single }
    }
    const [first, ...others] = singles as [Single, ...Single[]]
    const all = this.#stageAt(latest).singles
    for (const other of others) {
      all.splice(all.indexOf(other), 1)
      first.nodes.push(...other.nodes)
      for (const { outputs } of other.nodes)
        for (const name of outputs) this.#places.set(name, { stage: latest, single: first })
    }
    first.nodes.push(node)
    first.work = total
    return { stage: latest, single: first }
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
      for (const name of tasks.flatMap(namesWrittenBy)) this.#places.set(name, { stage: after })
    }
  }

  #stageAt(stage: number): SmallStage {
    while (this.#stages.length <= stage) this.#stages.push({ kernels: [], byRows: [], singles: [] })
    return this.#stages[stage]!
  }

  #tasksOf({ kernels, byRows, singles }: SmallStage): Task[] {
    return [
      ...kernels,
      ...byRows.map(nodes => this.#graphOf(nodes, this.#parts, node => this.rolesOf(node)!)),
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
    const isRead = (name: string) =>
      this.#needed.has(name) || this.#readersOf(name).some(node => !own.has(node))
    const byColumns = { names: this.#columns, parts: this.#parts }
    return partedGraph(this.#body, nodes, { parts, rolesOf, byColumns }, isRead)
  }

  /** The nodes that read a value in any shape: those that are placed. */
  #readersOf(name: string): OnnxNode[] {
    return this.#body
      .readersOf(name)
      .flatMap(node =>
        this.#body.isAlias(node) && !this.#needed.has(node.outputs[0]!)
          ? this.#readersOf(node.outputs[0]!)
          : [node],
      )
  }
}
