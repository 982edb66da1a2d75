/** Which nodes that run part by part do so together. */
import type { OnnxNode } from '../../onnx/model.ts'
import type { Parting } from './parted.ts'
import type { StepBody } from './step-body.ts'

/** Nodes that run part by part, in one stage: each part from the first node to the last. */
export interface Draft {
  readonly nodes: OnnxNode[]
  parts: number
}

/** A stage, as far as drafts go. */
export interface DraftStage {
  readonly drafts: Draft[]
  /** Of kernels: what they read from memory. */
  readonly groups: readonly { readonly built: { readonly leaves: ReadonlySet<string> } }[]
}

export class Drafts {
  readonly #body: StepBody
  readonly #parting: Parting
  readonly #isMeasured: boolean

  /** @param isMeasured whether each node is measured by itself: then each is a draft */
  constructor(body: StepBody, parting: Parting, isMeasured: boolean) {
    this.#body = body
    this.#parting = parting
    this.#isMeasured = isMeasured
  }

  /**
   * Adds a node to a draft, and says to which, and in which stage; undefined where it runs in parts only beside others,
   * and there are none.
   *
   * @param sources for each input where it is computed, if that is in the stage before `stage`
   * @param stages of the phase; one is added where the node begins the next
   */
  take(
    node: OnnxNode,
    sources: readonly ({ readonly draft?: Draft } | undefined)[],
    stages: DraftStage[],
    stage: number,
  ): { readonly draft: Draft; readonly stage: number } | undefined {
    const before = stages[stage - 1]
    const joined = before && this.#joined(node, sources, before)
    const draft = joined ?? this.#draftFor(node, stages, stage)
    if (!draft) return undefined
    draft.nodes.push(node)
    const own = joined ? stage - 1 : stage
    if (!this.#isMeasured) this.#gather(draft, stages.slice(0, own + 1))
    return { draft, stage: own }
  }

  /** The drafts of a node's sources as one that it can be part of; undefined: it cannot. */
  #joined(
    node: OnnxNode,
    sources: readonly ({ readonly draft?: Draft } | undefined)[],
    { drafts }: DraftStage,
  ): Draft | undefined {
    const roles = this.#parting.rolesOf(node)!
    const found = new Set(
      sources.flatMap((source, i) => (source ? [roles[i] === 'part' ? source.draft : undefined] : [])),
    )
    const [first, ...others] = [...found]
    if (!first || others.includes(undefined) || this.#isMeasured) return undefined
    const all = [first, ...others] as [Draft, ...Draft[]]
    const parts = Math.max(this.#parting.partsOf(node) ?? 1, ...all.map(draft => draft.parts))
    if (!this.#fallInto([...all.flatMap(({ nodes }) => nodes), node], parts)) return undefined
    for (const draft of others as Draft[]) {
      drafts.splice(drafts.indexOf(draft), 1)
      first.nodes.push(...draft.nodes)
    }
    first.parts = parts
    return first
  }

  #fallInto(nodes: readonly OnnxNode[], parts: number): boolean {
    return nodes.every(node => this.#parting.fallsInto(node, parts))
  }

  /** Whether a draft reads parts of what nodes read parts of, or makes it. */
  #isAlike(draft: Draft, nodes: readonly OnnxNode[]): boolean {
    const own = new Set(nodes.flatMap(node => this.#parting.partsRead(node)))
    const namesOf = (other: OnnxNode) => [...this.#parting.partsRead(other), ...other.outputs]
    return draft.nodes.some(other => namesOf(other).some(name => own.has(name)))
  }

  /** A draft of a stage that reads the same, or a new one. */
  #draftFor(node: OnnxNode, stages: DraftStage[], stage: number): Draft | undefined {
    const parts = this.#parting.partsOf(node)
    if (parts === undefined) return undefined
    if (stages.length === stage) stages.push({ groups: [], drafts: [] })
    const { drafts } = stages[stage]!
    const known = drafts.find(draft => draft.parts === parts && this.#isAlike(draft, [node]))
    if (known && !this.#isMeasured) return known
    const draft: Draft = { nodes: [], parts }
    drafts.push(draft)
    return draft
  }

  /** Takes in drafts of earlier stages that read parts of what the draft reads, or make it, and can wait. */
  #gather(draft: Draft, stages: readonly DraftStage[]): void {
    for (const [i, { drafts }] of stages.slice(0, -1).entries())
      for (const other of [...drafts]) {
        const parts = Math.max(draft.parts, other.parts)
        const nodes = [...other.nodes, ...draft.nodes]
        if (!this.#isAlike(other, draft.nodes) || !this.#fallInto(nodes, parts)) continue
        const made = new Set(other.nodes.flatMap(({ outputs }) => outputs))
        const isAwaited = stages
          .slice(i + 1)
          .some(later => this.#readsOf(later, draft).some(n => made.has(n)))
        if (isAwaited || draft.nodes.some(node => this.#readsWhole(node, made))) continue
        drafts.splice(drafts.indexOf(other), 1)
        draft.nodes.unshift(...other.nodes)
        draft.parts = parts
      }
  }

  #readsWhole(node: OnnxNode, values: ReadonlySet<string>): boolean {
    const roles = this.#parting.rolesOf(node)!
    return node.inputs.some((name, i) => roles[i] === 'whole' && values.has(this.#body.baseOf(name)))
  }

  /** What a stage reads, but for one draft. */
  #readsOf({ groups, drafts }: DraftStage, except: Draft): string[] {
    const nodes = drafts.flatMap(draft => (draft === except ? [] : draft.nodes))
    return [
      ...groups.flatMap(({ built }) => [...built.leaves]),
      ...nodes.flatMap(({ inputs }) => inputs.map(name => this.#body.baseOf(name))),
    ]
  }
}
