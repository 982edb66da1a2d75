/** What the bench asks its peers, and what they answer: bench/README.md in types. */
import type { Model } from '../src/nn/model.ts'

/** A network to train, and on what. */
export interface Job {
  readonly model: Model
  /** A file of N * H * W * C bytes. */
  readonly images: string
  /** A file of N bytes. */
  readonly labels: string
  /** [N, H, W, C] */
  readonly shape: readonly [number, number, number, number]
  readonly classes: number
  readonly batch: number
  readonly threads: number
  readonly seed: number
}

export type Request =
  | ({ readonly do: 'prepare' } & Job)
  | { readonly do: 'choose'; readonly seconds: number }
  | { readonly do: 'train'; readonly steps: number }
  | { readonly do: 'evaluate'; readonly batches: number }
  | { readonly do: 'memory' }

export interface Prepared {
  readonly peer: string
  readonly version: string
  readonly parameters: number
  /** When the loss of the first step was known, milliseconds since 1970. */
  readonly firstStep: number
}

export interface Chosen {
  readonly variant: string
  /** Milliseconds a step of each variant. */
  readonly tried: Readonly<Record<string, number>>
}

/** The answer to each request. */
export interface Answers {
  readonly prepare: Prepared
  readonly choose: Chosen
  readonly train: { readonly ms: number }
  readonly evaluate: { readonly ms: number; readonly loss: number; readonly accuracy: number }
  readonly memory: { readonly peakBytes: number }
}
