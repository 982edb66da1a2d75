/** The one door to ONNX Runtime: what every platform's engine does. */
import type { ValueType } from '../onnx/shapes.ts'
import type { HostTensor } from '../util/host-tensor.ts'

/** The devices that an engine may run on, by ONNX Runtime's names. */
export const devices = ['cpu', 'cuda', 'webgpu'] as const

export type Device = (typeof devices)[number]

export interface EngineOptions {
  /** Default: `'cpu'`. */
  readonly device?: Device
  /** Threads of one run, 1024 at most. Default: all available cores. */
  readonly threads?: number
}

/**
 * Holds named tensors and runs programs on them, off the caller's thread.
 *
 * Requests are answered in the order in which they were made; large ones travel in pieces and hold up what
 * follows, so that nothing that is given may change until the promise is settled. After `close`, or after the
 * engine has died, every request is rejected with a `FoveaError`.
 */
export interface Engine {
  readonly device: Device
  readonly threads: number
  /** Name and version of the runtime: `'onnxruntime-node 1.30.0'`. Recorded with each trial. */
  readonly version: string
  /** Stores a copy of `values` under their names; replaces what was there. */
  write(values: Readonly<Record<string, HostTensor>>): Promise<void>
  /** Copies stored tensors out. Rejects when a name is not stored. */
  read(names: readonly string[]): Promise<Record<string, HostTensor>>
  /** Forgets stored tensors; rejects, and forgets none, when a name is not stored. */
  free(names: readonly string[]): Promise<void>
  /** Prepares an ONNX model for running. */
  load(bytes: Uint8Array, options?: ProgramOptions): Promise<Program>
  /**
   * Settled once the requests so far have left this thread, which may then be busy without holding them up; but for
   * those that wait until large values before them are stored.
   */
  sent(): Promise<void>
  /** Waits for the requests under way, then ends the engine. Closing twice is allowed. */
  close(): Promise<void>
}

export interface ProgramOptions {
  /** Measure what each node takes, for `Program.profile`; makes runs slower. Default: false. */
  readonly profile?: boolean
}

/** What a node of a program took in one run, all its calls together. */
export interface NodeTiming {
  /** As ONNX Runtime has it: a node that it fused has a longer name, one that it inserted a name of its own. */
  readonly name: string
  readonly op: string
  /** The name of the `Loop` in whose body the node stands; undefined in the main graph. */
  readonly loop: string | undefined
  readonly calls: number
  /** Of all calls, by a clock of whole microseconds. */
  readonly seconds: number
  /** Of one call: what another process takes from a few of them does not show. */
  readonly medianSeconds: number
  /** Of the first call. Constants that ONNX Runtime keeps in a form of its own are not among the inputs. */
  readonly inputs: readonly ValueType[]
  readonly outputs: readonly ValueType[]
}

/** One run of a program that was loaded to be profiled. */
export interface RunTiming {
  readonly seconds: number
  /** The `Loop` nodes are among them: their time contains that of their bodies. */
  readonly nodes: readonly NodeTiming[]
}

export interface RunCall {
  /** Input -> value, for this call only. */
  readonly feeds?: Readonly<Record<string, HostTensor>>
  /**
   * Input -> name of a stored tensor. An input neither fed nor bound is taken from the
   * store under its own name.
   */
  readonly bind?: Readonly<Record<string, string>>
  /** Output -> name under which it stays with the engine: it does not travel. */
  readonly keep?: Readonly<Record<string, string>>
}

export interface Program {
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  /**
   * Runs once; gives the outputs that are not kept. When a run is refused, the store is unchanged; when it fails
   * on its way, state that it was about to replace may be gone from the store.
   */
  run(call?: RunCall): Promise<Record<string, HostTensor>>
  /**
   * Ends the measuring of a program that was loaded with `profile`: what its runs so far took, in order.
   * ONNX Runtime records a million calls of nodes; a run that it could not record to its end is left out.
   */
  profile(): Promise<readonly RunTiming[]>
  release(): Promise<void>
}
