/** The one door to ONNX Runtime: what every platform's engine does. */
import type { HostTensor } from '../util/host-tensor.ts'

/** The devices that an engine may run on, by ONNX Runtime's names. */
export const devices = ['cpu', 'cuda', 'webgpu'] as const

export type Device = (typeof devices)[number]

export interface EngineOptions {
  /** Default: `'cpu'`. */
  readonly device?: Device
  /** Threads of one run. Default: all available cores. */
  readonly threads?: number
}

/**
 * Holds named tensors and runs programs on them, off the caller's thread.
 *
 * Requests are answered in the order in which they were made. After `close`, or after the engine has died,
 * every request is rejected with a `FoveaError`.
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
  load(bytes: Uint8Array): Promise<Program>
  /** Waits for the requests under way, then ends the engine. Closing twice is allowed. */
  close(): Promise<void>
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
  /** Runs once; gives the outputs that are not kept. When a run fails, the store is unchanged. */
  run(call?: RunCall): Promise<Record<string, HostTensor>>
  release(): Promise<void>
}
