/** The order of a step: graphs that ONNX Runtime runs and stages of tasks, in turns. */
import type { OnnxNode } from '../../onnx/model.ts'
import { Unfit } from './access.ts'
import { type Draft, type DraftStage, Drafts } from './drafts.ts'
import { Parting } from './parted.ts'
import { partedGraph } from './parted-graph.ts'
import {
  type BuiltKernels,
  blocksKernel,
  passKernels,
  type Root,
  sumRoots,
  turnedRoot,
  valueRoot,
} from './pass-kernels.ts'
import { Passes } from './passes.ts'
import type { StepBody } from './step-body.ts'
import type { Task } from './task.ts'
import type { Updates } from './updates.ts'

export type Phase =
  | { readonly nodes: readonly OnnxNode[] }
  /** Tasks of one stage may run in any order; those of the next read what they wrote. */
  | { readonly stages: readonly (readonly Task[])[] }

export interface Phases {
  readonly phases: readonly Phase[]
  /** How many float32 values have the sums of blocks of rows, which are none of the step's graph. */
  readonly extra: Map<string, number>
}

/** Who runs a step. */
export interface Crew {
  readonly threads: number
  /** Whether each node is to be measured by itself. */
  readonly isMeasured: boolean
}

/** @param needed values of the step that are read after it */
export function phasesOf(body: StepBody, updates: Updates, needed: ReadonlySet<string>, crew: Crew): Phases {
  const refused = new Set<OnnxNode>()
  const apart = new Set<string>()
  const known = new Map<string, Group>()
  for (;;) {
    const passes = new Passes(body, updates, refused, apart)
    const schedule = new Schedule(body, updates, passes, needed, known, crew)
    const phases = schedule.phases()
    if (schedule.refused.size === 0 && schedule.apart.size === 0) return phases
    for (const node of schedule.refused) refused.add(node)
    for (const name of schedule.apart) apart.add(name)
  }
}

/** Roots of one kernel. */
interface Group {
  readonly roots: readonly [Root, ...Root[]]
  readonly built: BuiltKernels
}

interface Position {
  readonly phase: number
  readonly stage: number
  readonly draft?: Draft
}

/** What is in a stage. */
interface Stage extends DraftStage {
  readonly groups: Group[]
}

class Schedule {
  /** Nodes that no kernel can compute after all: then the phases are of no use. */
  readonly refused = new Set<OnnxNode>()
  /** Weighted rows that must be in memory: what is computed from them is too much for one kernel. */
  readonly apart = new Set<string>()
  readonly #body: StepBody
  readonly #updates: Updates
  readonly #passes: Passes
  readonly #needed: ReadonlySet<string>
  /** What kernels write, and the weighted rows that are computed within. */
  readonly #roots: ReadonlyMap<string, readonly string[]>
  /** Kernels of one root by its name, and of several by their names and loops; of an earlier schedule too. */
  readonly #known: Map<string, Group>
  readonly #parting: Parting
  readonly #drafts: Drafts
  /** Even ones are ONNX Runtime's. */
  readonly #phases: (OnnxNode[] | Stage[])[] = [[]]
  /** Where a value is computed: its phase, its stage if that has some, and the nodes that it is computed beside. */
  readonly #places = new Map<string, Position>()

  constructor(
    body: StepBody,
    updates: Updates,
    passes: Passes,
    needed: ReadonlySet<string>,
    known: Map<string, Group>,
    crew: Crew,
  ) {
    this.#known = known
    this.#body = body
    this.#updates = updates
    this.#passes = passes
    this.#needed = needed
    this.#roots = passes.roots(needed)
    this.#parting = new Parting(
      body,
      crew.threads,
      node => updates.has(node) || passes.kindOf(node) !== undefined,
    )
    this.#drafts = new Drafts(body, this.#parting, crew.isMeasured)
  }

  phases(): Phases {
    for (const node of this.#inOrder()) {
      if (this.#updates.has(node)) continue
      if (this.#passes.kindOf(node)) {
        for (const name of node.outputs) if (this.#roots.has(name)) this.#placeRoot(node, name)
      } else if (this.#isPlaced(node)) {
        if (!this.#placeParts(node)) this.#placeNode(node)
      }
    }
    const extra = new Map<string, number>()
    const phases = this.#phases.map((phase, i): Phase => {
      if (i % 2 === 0) return { nodes: phase as OnnxNode[] }
      const stages = phase as Stage[]
      for (const { summed, tensor, size } of stages.flatMap(({ groups }) => groups.flatMap(g => g.roots)))
        if (summed !== undefined) extra.set(tensor, size)
      return { stages: stages.map(stage => this.#tasksOf(stage)) }
    })
    return { phases, extra }
  }

  /**
   * What runs in parts comes right before its first reader, where it can go along with that, unless it makes less of
   * what it reads: attention weights that are made again need not be kept.
   */
  #inOrder(): ReadonlySet<OnnxNode> {
    const { nodes } = this.#body
    const isRead = ({ outputs }: OnnxNode) => outputs.some(name => this.#body.realReadersOf(name).length > 0)
    const late = new Set(
      nodes.filter(node => this.#parting.rolesOf(node) && !this.#makesLess(node) && isRead(node)),
    )
    const order = new Set<OnnxNode>()
    const place = (node: OnnxNode) => {
      for (const name of this.#isPlaced(node) ? node.inputs : []) {
        const source = this.#body.producerOf(this.#body.baseOf(name))
        if (source && late.has(source) && !order.has(source)) place(source)
      }
      order.add(node)
    }
    for (const node of nodes) if (!late.has(node)) place(node)
    return order
  }

  /** But for other names of one memory that nobody reads after the step. */
  #isPlaced(node: OnnxNode): boolean {
    return !this.#body.isAlias(node) || this.#needed.has(node.outputs[0]!)
  }

  /**
   * In the last graph of ONNX Runtime's, if what it reads is there; in the first that can, where it makes less of what
   * earlier phases wrote: that may still lie in a cache, and need not be kept.
   */
  #placeNode(node: OnnxNode): void {
    const phase = this.#phaseFor(node.inputs, 0, this.#makesLess(node) ? 0 : this.#phases.length - 1)
    const nodes = this.#phases[phase] as OnnxNode[]
    nodes.push(node)
    for (const name of node.outputs) this.#places.set(name, { phase, stage: 0 })
  }

  #makesLess({ inputs, outputs }: OnnxNode): boolean {
    const total = (names: readonly string[]) => names.reduce((sum, name) => sum + this.#body.sizeOf(name), 0)
    const isOfStep = (name: string) => this.#body.producerOf(this.#body.baseOf(name)) !== undefined
    return total(outputs) < total(inputs.filter(isOfStep))
  }

  /**
   * The phase `least` or the one before it, whichever is of this kind, 0 for ONNX Runtime's and 1 for kernels; a later
   * one where these values come later.
   */
  #phaseFor(values: Iterable<string>, kind: 0 | 1, least = this.#phases.length - 1): number {
    const ofKind = (phase: number, otherwise: number) => (phase % 2 === kind ? phase : otherwise)
    let phase = Math.max(kind, ofKind(least, least - 1))
    for (const name of values) {
      const place = this.#places.get(this.#body.baseOf(name))
      if (place) phase = Math.max(phase, ofKind(place.phase, place.phase + 1))
    }
    while (this.#phases.length <= phase) this.#phases.push([])
    return phase
  }

  #placeRoot(node: OnnxNode, name: string): void {
    const isSum = this.#passes.kindOf(node) === 'sum'
    const group = this.#knownGroup(name) ?? this.#groupOf(node, name)
    if (group instanceof Unfit) {
      const within = this.#roots.get(name)!
      for (const rows of within) this.apart.add(rows)
      if (within.length === 0) this.refused.add(group.node ?? node)
      return
    }
    this.#known.set(name, group)
    const [root] = group.roots
    const leaves = [...group.built.leaves]
    const phase = this.#phaseFor(leaves, 1)
    const stage = this.#stageAfter(leaves, phase)
    // A sum's blocks are added up in a stage of their own.
    const own = isSum ? stage + 1 : stage
    this.#join(this.#stageAt(phase, stage).groups, group)
    const { groups } = this.#stageAt(phase, own)
    this.#places.set(name, { phase, stage: own })
    if (isSum) {
      const kernel = blocksKernel(this.#body, root, node.name ?? '')
      groups.push({
        roots: [root],
        built: { kernels: [kernel], leaves: new Set([root.tensor]), inner: new Set() },
      })
    }
  }

  #stageAt(phase: number, stage: number): Stage {
    const stages = this.#phases[phase] as Stage[]
    while (stages.length <= stage) stages.push({ groups: [], drafts: [] })
    return stages[stage]!
  }

  /** The first stage of a phase that all of these values come before. */
  #stageAfter(values: readonly string[], phase: number): number {
    const places = values.map(name => this.#places.get(this.#body.baseOf(name)))
    return Math.max(0, ...places.map(place => (place?.phase === phase ? place.stage + 1 : 0)))
  }

  /** Places a node that runs part by part; false: it does not. */
  #placeParts(node: OnnxNode): boolean {
    if (!this.#parting.rolesOf(node)) return false
    const isEarly = this.#parting.partsOf(node) === undefined || this.#makesLess(node)
    const before = this.#phases.length
    const phase = this.#phaseFor(node.inputs, 1, isEarly ? 0 : before - 1)
    const stage = this.#stageAfter(node.inputs, phase)
    const positions = node.inputs.map(name => this.#places.get(this.#body.baseOf(name)))
    const sources = positions.map(place =>
      place?.phase === phase && place.stage === stage - 1 ? place : undefined,
    )
    const found = this.#drafts.take(node, sources, this.#phases[phase] as Stage[], stage)
    if (!found) {
      this.#phases.length = before
      return false
    }
    for (const { outputs } of found.draft.nodes)
      for (const name of outputs) this.#places.set(name, { phase, ...found })
    return true
  }

  #tasksOf({ groups, drafts }: Stage): Task[] {
    const graphs = drafts.map(({ nodes, parts }) => {
      const own = new Set(nodes)
      const isRead = (name: string) => this.#body.isReadBeyond(name, own, this.#needed)
      return partedGraph(this.#body, nodes, { parts, rolesOf: node => this.#parting.rolesOf(node)! }, isRead)
    })
    return [...groups.flatMap(({ built }) => built.kernels), ...graphs]
  }

  #groupOf(node: OnnxNode, name: string): Group | Unfit {
    const kind = this.#passes.kindOf(node)
    const roots =
      kind === 'sum'
        ? sumRoots(this.#body, name, node.inputs[1]!)
        : [kind === 'turn' ? turnedRoot(this.#body, name, node.inputs[0]!) : valueRoot(this.#body, name)]
    return this.#firstOf(roots.map(root => [root] as const))
  }

  /** What an earlier schedule found, if what it reads is still in memory, and nothing else. */
  #knownGroup(key: string): Group | undefined {
    const group = this.#known.get(key)
    const isStill = group && [...group.built.leaves].every(this.#isLeaf)
    return isStill && ![...group.built.inner].some(this.#isLeaf) ? group : undefined
  }

  /** What is computed in the same loops from the same values is one pass over them. */
  #join(groups: Group[], group: Group): void {
    const [root] = group.roots
    const isLarge = (name: string) =>
      (this.#body.producerOf(name) ? this.#body.sizeOf(name) : 0) * 4 > root.size
    const isAlone = ({ name, turned }: Root) =>
      turned !== undefined ||
      this.#passes.kindOf(this.#body.producerOf(name)!) === 'weighted' ||
      this.#roots.get(name)!.length > 0
    const at = groups.findIndex(
      ({ roots: [other], built: { leaves } }) =>
        !isAlone(root) &&
        !isAlone(other) &&
        other.loops.join() === root.loops.join() &&
        [...group.built.leaves].some(leaf => isLarge(leaf) && leaves.has(leaf)),
    )
    const joined = at < 0 ? undefined : this.#groupOfAll([...groups[at]!.roots, root])
    if (joined && !(joined instanceof Unfit)) groups[at] = joined
    else groups.push(group)
  }

  /** One kernel of roots of the same loops; names and loops say what they are. */
  #groupOfAll(roots: readonly [Root, ...Root[]]): Group | Unfit {
    const key = JSON.stringify([roots.map(({ name }) => name), roots[0].loops])
    const group = this.#knownGroup(key) ?? this.#firstOf([roots])
    if (!(group instanceof Unfit)) this.#known.set(key, group)
    return group
  }

  /** The first of several ways that a kernel can compute; else why it cannot the last of them. */
  #firstOf(ways: readonly (readonly [Root, ...Root[]])[]): Group | Unfit {
    let unfit = new Unfit('no way')
    for (const roots of ways)
      try {
        const name = this.#body.producerOf(roots[0].name)!.name ?? ''
        return { roots, built: passKernels(this.#body, this.#isLeaf, roots, name) }
      } catch (error) {
        if (!(error instanceof Unfit)) throw error
        unfit = error
      }
    return unfit
  }

  #isLeaf = (name: string): boolean => {
    if (!this.#body.isFloat(name)) return false
    const producer = this.#body.producerOf(name)
    if (producer) return !this.#passes.kindOf(producer) || this.#roots.has(name)
    return this.#body.isState(name) || this.#body.isOfFixedSize(name)
  }
}
