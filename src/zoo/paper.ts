/** What a paper's file holds: its citation, its architectures, its protocol, its claims, and what had to be assumed. */
import type { Loss } from '../nn/losses.ts'
import type { Model } from '../nn/model.ts'
import type { Optimizer } from '../nn/optimizers.ts'

/** A network that can be named on the command line. */
export interface Architecture {
  /** `singh-brar/basic`. */
  readonly name: string
  readonly title: string
  /** The paper's id. */
  readonly paper: string
  /** What the paper leaves out and was assumed, for this network. */
  readonly assumed: readonly string[]
  /** The network for images [height, width, channels] and a number of classes. */
  build(input: readonly [number, number, number], classes: number): Model
}

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

export interface Paper {
  /** `singh-brar-2024`. */
  readonly id: string
  readonly citation: string
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
