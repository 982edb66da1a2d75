/** Sessions for graphs of one model; graphs that differ in names only share one. */
import { createHash } from 'node:crypto'
import { encodeModel } from '../../onnx/encode.ts'
import type { OnnxGraph, OnnxModel } from '../../onnx/model.ts'
import type { NativeOptions, NativeRuntime, NativeSession } from './onnxruntime.ts'
import { oriented } from './oriented.ts'

/** A session and its names of a graph's values. */
export interface SharedSession {
  readonly session: NativeSession
  /** Those that are not here are the graph's own. */
  readonly names: ReadonlyMap<string, string>
}

export class Sessions {
  readonly #runtime: NativeRuntime
  readonly #model: OnnxModel
  readonly #known = new Map<string, NativeSession>()
  readonly #all = new Set<NativeSession>()

  constructor(runtime: NativeRuntime, model: OnnxModel) {
    this.#runtime = runtime
    this.#model = model
  }

  /** A session of a graph's own, in its names. */
  own(graph: OnnxGraph, options: NativeOptions): NativeSession {
    return this.#made(encodeModel({ ...this.#model, graph }), options)
  }

  /** Of a graph with matrices laid as products want them. */
  shared(graph: OnnxGraph, threads: number): SharedSession {
    return this.#copies(graph, threads, [0])[0]!
  }

  /** The same, of one thread each, to run at once: calls of one session wait for each other at its allocator. */
  alike(graph: OnnxGraph, copies: readonly number[]): SharedSession[] {
    return this.#copies(graph, 1, copies)
  }

  #copies(graph: OnnxGraph, threads: number, copies: readonly number[]): SharedSession[] {
    const { renamed, names } = withPlainNames(oriented(graph))
    const bytes = encodeModel({ ...this.#model, graph: renamed })
    const hash = createHash('sha256').update(bytes).digest('hex')
    return copies.map(copy => {
      const key = `${threads} ${copy} ${hash}`
      const session = this.#known.get(key) ?? this.#made(bytes, { threads })
      this.#known.set(key, session)
      return { session, names }
    })
  }

  #made(bytes: Uint8Array, options: NativeOptions): NativeSession {
    const session = this.#runtime.session(bytes, options)
    this.#all.add(session)
    return session
  }

  release(): void {
    for (const session of this.#all) session.release()
  }
}

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
