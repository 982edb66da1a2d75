/** The phases of a step that ONNX Runtime runs with threads of its own. */
import type { OnnxGraph } from '../../onnx/model.ts'
import type { RunTiming } from '../engine.ts'
import type { Recording } from '../loaded-program.ts'
import { runTimings } from '../profile.ts'
import type { Tensors } from '../protocol.ts'
import type { NativeBinding } from './onnxruntime.ts'
import type { Sessions, SharedSession } from './sessions.ts'

interface Segment extends SharedSession {
  readonly graph: OnnxGraph
}

/** Segments whose inputs and outputs have their memory. */
export interface BoundSegments {
  /** Runs the segment of a phase; nothing where the phase has none. */
  run(phase: number): void
  release(): void
}

export class Segments {
  readonly #segments: readonly (Segment | undefined)[]

  /**
   * @param graphs by phase
   * @param prefix begins the names of records, where runs are recorded: then each segment has a session of its own
   */
  constructor(
    sessions: Sessions,
    threads: number,
    graphs: readonly (OnnxGraph | undefined)[],
    prefix: string | undefined,
  ) {
    this.#segments = graphs.map((graph, phase) => {
      if (!graph || graph.outputs.length === 0) return undefined
      if (prefix === undefined) return { graph, ...sessions.shared(graph, threads) }
      const session = sessions.own(graph, { threads, profilePrefix: `${prefix}${recordOf(phase)}` })
      return { session, graph, names: new Map() }
    })
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
      timings.push(await runTimings(recording.lines(recordOf(phase))))
    }
    return timings
  }
}

const recordOf = (phase: number): string => `-${phase}-`
