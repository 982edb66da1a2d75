/** A source whose whole protocol is implemented: its arms, scales and claims, and what had to be assumed. */
import type { Loss } from '../nn/losses.ts'
import type { Optimizer } from '../nn/optimizers.ts'
import type { Architecture, Source } from './architecture.ts'

/** A configuration that a paper compares. */
export interface Arm {
  /** `sparse, 25 %`. */
  readonly name: string
  readonly architecture: string
  /** Share of the training images. */
  readonly fraction: number
  /** What the paper leaves open and was assumed, for this arm. */
  readonly assumed?: readonly string[]
}

/** A number that a paper reports. */
export interface Claim {
  readonly arm: string
  /** Test accuracy, a fraction. */
  readonly accuracy: number
  /** Where the paper says so. */
  readonly place: string
}

/** How much of the protocol is run. */
export interface Scale {
  readonly dataSet: string
  readonly epochs: number
  readonly seeds: number
  /** Names of the arms. */
  readonly arms: readonly string[]
}

export const scaleNames = ['smoke', 'quick', 'paper'] as const
export type ScaleName = (typeof scaleNames)[number]

export interface Paper extends Source {
  /** One sentence: what it compares. */
  readonly question: string
  readonly architectures: readonly Architecture[]
  readonly arms: readonly Arm[]
  readonly training: {
    readonly optimizer: Optimizer
    readonly loss: Loss
    readonly batchSize: number
    /** Share of the training images held out for validation. */
    readonly validation: number
    /** Test the parameters of the epoch with the best validation accuracy, or those of the last epoch. */
    readonly test: 'best epoch' | 'last epoch'
  }
  /** What the paper leaves out of its protocol and was assumed. */
  readonly assumed: readonly string[]
  readonly scales: Readonly<Record<ScaleName, Scale>>
  readonly claims: readonly Claim[]
  /** What a reader should know before comparing. */
  readonly remarks: readonly string[]
}
