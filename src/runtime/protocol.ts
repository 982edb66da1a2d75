/** What travels between an engine's client and its host. Everything here can be cloned structurally. */
import type { DType, HostTensor, Shape } from '../util/host-tensor.ts'

export type Tensors = Readonly<Record<string, HostTensor>>
export type Names = Readonly<Record<string, string>>

/** Values that are on their way, and how the host gets them. */
export interface Incoming {
  readonly length: number
  /** Into as many bytes. */
  readInto(target: Uint8Array): void
}

export type Request =
  /**
   * A piece of a tensor: large ones come in several, and are stored with the last one. What follows that is
   * zeros.
   */
  | {
      readonly op: 'write'
      readonly name: string
      readonly dtype: DType
      readonly shape: Shape
      readonly offset: number
      readonly bytes: Uint8Array | Incoming
      readonly isLast: boolean
    }
  | { readonly op: 'read'; readonly names: readonly string[] }
  | { readonly op: 'free'; readonly names: readonly string[] }
  | { readonly op: 'load'; readonly bytes: Uint8Array; readonly profile: boolean }
  | {
      readonly op: 'run'
      readonly program: number
      readonly feeds: Tensors
      readonly bind: Names
      readonly keep: Names
    }
  | { readonly op: 'profile'; readonly program: number }
  | { readonly op: 'release'; readonly program: number }

export interface Message {
  readonly id: number
  readonly request: Request
}

/** The answer to a `load`. */
export interface Loaded {
  readonly program: number
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
}

export type Reply =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly usage: boolean; readonly message: string } }
