/** What an entry of the zoo is: a network that can be named, where it comes from, and what its source leaves open. */
import { type Connection, functional, type Model } from '../nn/model.ts'
import { checkInteger, UsageError } from '../util/errors.ts'

/** Who published it. */
export interface Source {
  /** `wang`, `he-2016`. */
  readonly id: string
  readonly citation: string
}

/** Images that a source trains a network on. */
export interface Native {
  /** The data set's name for people. */
  readonly dataSet: string
  /** [height, width, channels] of the images. */
  readonly input: readonly [number, number, number]
  readonly classes: number
}

export const MNIST: Native = { dataSet: 'MNIST', input: [28, 28, 1], classes: 10 }
export const FASHION_MNIST: Native = { dataSet: 'Fashion-MNIST', input: [28, 28, 1], classes: 10 }
export const CIFAR_10: Native = { dataSet: 'CIFAR-10', input: [32, 32, 3], classes: 10 }
/** ImageNet's images, cropped to squares of `side` pixels. */
export const imageNet = (side: number): Native => ({
  dataSet: 'ImageNet',
  input: [side, side, 3],
  classes: 1000,
})

/** What is known of an architecture besides its layers. */
interface Facts {
  /** `singh-brar/basic`. */
  readonly name: string
  readonly title: string
  readonly source: Source
  /** What the source says of this network. */
  readonly stated: readonly string[]
  /** What the source leaves out and was assumed, and where this network departs from it. */
  readonly assumed: readonly string[]
  /** The images that the source trains it on. */
  readonly native: Native
}

/** A network that can be named on the command line. */
export interface Architecture extends Facts {
  /** Pixels of the least height and width that all its windows fit in. */
  readonly least: number
  /**
   * The network for images [height, width, channels] and a number of classes.
   *
   * @throws UsageError where the images are too small, or an extent is no positive whole number
   */
  build(input: readonly [number, number, number], classes: number): Model
}

interface Definition extends Facts {
  /** Default: 1. */
  readonly least?: number
  /** From images to logits. */
  readonly network: (images: Connection, classes: number) => Connection
}

/** An architecture that checks what it is built for. */
export function architecture({ least = 1, network, ...facts }: Definition): Architecture {
  const { name } = facts
  return {
    ...facts,
    least,
    build(input, classes) {
      const [height, width, channels] = input
      checkInteger(name, 'height', height, 1)
      checkInteger(name, 'width', width, 1)
      checkInteger(name, 'channels', channels, 1)
      checkInteger(name, 'classes', classes, 1)
      if (Math.min(height, width) < least)
        throw new UsageError(
          `${name}: expected images of at least ${least} x ${least} pixels, received ${height} x ${width}`,
        )
      return functional({ name, input }, images => network(images, classes))
    },
  }
}
