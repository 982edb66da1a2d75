/** What a host runs; and the usual way to run it, as a session of ONNX Runtime's JavaScript packages. */
import type { InferenceSession } from 'onnxruntime-node'
import { UsageError } from '../util/errors.ts'
import type { HostTensor } from '../util/host-tensor.ts'
import type { RunTiming } from './engine.ts'
import { hostTensorOf, type OrtModule, ortTensorOf } from './ort-tensor.ts'
import { runTimings } from './profile.ts'
import type { Tensors } from './protocol.ts'

export interface DeclaredInput {
  readonly name: string
  readonly dtype: string
  /** A text is an extent of any size. Undefined: not known. */
  readonly shape: readonly (number | string)[] | undefined
}

export interface LoadedProgram {
  readonly inputs: readonly DeclaredInput[]
  readonly outputs: readonly string[]
  /**
   * Runs once, on a value for each input, of its type and shape.
   *
   * @throws UsageError where it cannot run on these, and has changed nothing
   * @throws Error where ONNX Runtime fails
   */
  run(inputs: Tensors): Promise<Record<string, HostTensor>>
  /** Whether it takes tensors in memory that threads share without a copy. */
  readonly readsShared: boolean
  /** Whether the next run writes over `tensor`, which then is a value that an earlier one gave. */
  overwrites(tensor: HostTensor): boolean
  /** Where a run has an input of this name; what is there already, it need not copy. */
  homeOf(input: string): HostTensor | undefined
  /** What the runs so far took, if they were measured and this was not asked before. */
  profile(): Promise<RunTiming[] | undefined>
  release(): Promise<void>
}

/** Prepares a program. `recording`: it is to be measured. */
export type Loader = (bytes: Uint8Array, recording: Recording | undefined) => Promise<LoadedProgram>

/** Where ONNX Runtime writes what it measures of one session. */
export interface Recording {
  /** What the names of its files begin with. */
  readonly prefix: string
  /** The record's lines, once the session has ended it: of files whose names go on with `part`. */
  lines(part?: string): AsyncIterable<string>
  discard(): Promise<void>
}

/** A loader for all programs, on any platform and device. */
export function sessionLoader(ort: OrtModule, options: InferenceSession.SessionOptions): Loader {
  return async (bytes, recording) => {
    const measured = recording && { enableProfiling: true, profileFilePrefix: recording.prefix }
    const session = await ort.InferenceSession.create(bytes, { ...options, ...measured })
    return new SessionProgram(ort, session, recording)
  }
}

class SessionProgram implements LoadedProgram {
  readonly readsShared = false
  readonly inputs: readonly DeclaredInput[]
  readonly outputs: readonly string[]
  readonly #ort: OrtModule
  readonly #session: InferenceSession
  #recording: Recording | undefined

  constructor(ort: OrtModule, session: InferenceSession, recording: Recording | undefined) {
    this.#ort = ort
    this.#session = session
    this.#recording = recording
    this.inputs = session.inputMetadata.map(declared => {
      // ONNX Runtime gives no shape to a value of unknown rank, and none to a scalar.
      const shape = declared.isTensor && declared.shape.length > 0 ? declared.shape : undefined
      if (declared.isTensor) return { name: declared.name, dtype: declared.type, shape }
      throw new UsageError(`input "${declared.name}": expected a tensor, received another kind of value`)
    })
    this.outputs = session.outputNames
  }

  async run(inputs: Tensors): Promise<Record<string, HostTensor>> {
    const feeds = Object.entries(inputs).map(
      ([name, tensor]) => [name, ortTensorOf(this.#ort, tensor)] as const,
    )
    const outputs = await this.#session.run(Object.fromEntries(feeds))
    return Object.fromEntries(
      Object.entries(outputs).map(([name, tensor]) => [name, hostTensorOf(tensor, name)]),
    )
  }

  overwrites(): boolean {
    return false
  }

  homeOf(): undefined {
    return undefined
  }

  async profile(): Promise<RunTiming[] | undefined> {
    const recording = this.#recording
    if (!recording) return undefined
    this.#recording = undefined
    this.#session.endProfiling()
    try {
      return await runTimings(recording.lines())
    } finally {
      await recording.discard()
    }
  }

  async release(): Promise<void> {
    await this.#session.release()
    await this.#recording?.discard()
  }
}
