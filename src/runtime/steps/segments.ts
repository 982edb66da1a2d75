/** The parts of a step that ONNX Runtime runs; parts that differ in names only share a session. */
import { createHash } from 'node:crypto'
import { encodeModel } from '../../onnx/encode.ts'
import type { OnnxGraph, OnnxModel } from '../../onnx/model.ts'
import type { RunTiming } from '../engine.ts'
import type { Recording } from '../loaded-program.ts'
import { runTimings } from '../profile.ts'
import type { Tensors } from '../protocol.ts'
import type { NativeBinding, NativeRuntime, NativeSession } from './onnxruntime.ts'

interface Segment {
  readonly session: NativeSession
  readonly graph: OnnxGraph
  /** The session's names of the graph's values. */
  readonly names: ReadonlyMap<string, string>
}

/** Segments whose inputs and outputs have their memory. */
export interface BoundSegments {
  /** Runs the segment of a phase; nothing where the phase has none. */
  run(phase: number): void
  release(): void
}

export class Segments {
  readonly #segments: readonly (Segment | undefined)[]
  readonly #sessions = new Set<NativeSession>()

  /**
   * @param graphs by phase
   * @param prefix begins the names of records, where runs are recorded: then each segment has a session of its own
   */
  constructor(
    runtime: NativeRuntime,
    threads: number,
    model: OnnxModel,
    graphs: readonly (OnnxGraph | undefined)[],
    prefix: string | undefined,
  ) {
    const known = new Map<string, NativeSession>()
    const made = (bytes: Uint8Array, profilePrefix?: string) => {
      const session = runtime.session(bytes, { threads, ...(profilePrefix && { profilePrefix }) })
      this.#sessions.add(session)
      return session
    }
    try {
      this.#segments = graphs.map((graph, phase) => {
        if (!graph || graph.outputs.length === 0) return undefined
        if (prefix !== undefined) {
          const session = made(encodeModel({ ...model, graph }), `${prefix}${partOf(phase)}`)
          return { session, graph, names: new Map() }
        }
        const { renamed, names } = withPlainNames(graph)
        const bytes = encodeModel({ ...model, graph: renamed })
        const key = createHash('sha256').update(bytes).digest('hex')
        const session = known.get(key) ?? made(bytes)
        known.set(key, session)
        return { session, graph, names }
      })
    } catch (error) {
      this.release()
      throw error
    }
  }

  /** Binds all segments to these tensors, which hold the values of the same names. */
  bind(tensors: Tensors): BoundSegments {
    const bindings: (NativeBinding | undefined)[] = []
    const release = () => {
      for (const binding of bindings) binding?.release()
    }
    const named = (values: OnnxGraph['inputs'], names: ReadonlyMap<string, string>) =>
      Object.fromEntries(values.map(({ name }) => [names.get(name) ?? name, tensors[name]!]))
    try {
      for (const segment of this.#segments) {
        const { session, graph, names } = segment ?? {}
        bindings.push(session?.bind(named(graph!.inputs, names!), named(graph!.outputs, names!)))
      }
    } catch (error) {
      release()
      throw error
    }
    return { run: phase => bindings[phase]?.run(), release }
  }

  /** The timings of each run of each segment since the sessions began, where they are recorded. */
  async profile(recording: Recording): Promise<RunTiming[][]> {
    const timings: RunTiming[][] = []
    for (const [phase, segment] of this.#segments.entries()) {
      if (!segment) continue
      segment.session.endProfiling()
      timings.push(await runTimings(recording.lines(partOf(phase))))
    }
    return timings
  }

  release(): void {
    for (const session of this.#sessions) session.release()
  }
}

const partOf = (phase: number): string => `-${phase}-`

/** The graph with numbers in the place of names, in the order in which its nodes use them. */
function withPlainNames(graph: OnnxGraph): { renamed: OnnxGraph; names: ReadonlyMap<string, string> } {
  const names = new Map<string, string>()
  const renamed = (name: string) => {
    if (name !== '' && !names.has(name)) names.set(name, String(names.size))
    return names.get(name) ?? ''
  }
  const nodes = graph.nodes.map(({ name: _, ...node }) => ({
    ...node,
    inputs: node.inputs.map(renamed),
    outputs: node.outputs.map(renamed),
  }))
  const inOrder = <T extends { readonly name: string }>(values: readonly T[]): T[] =>
    values
      .map(value => ({ ...value, name: renamed(value.name) }))
      .sort((a, b) => Number(a.name) - Number(b.name))
  return {
    renamed: {
      name: 'segment',
      nodes,
      initializers: inOrder(graph.initializers),
      inputs: inOrder(graph.inputs),
      outputs: inOrder(graph.outputs),
    },
    names,
  }
}
