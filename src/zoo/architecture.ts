/** An entry of the zoo: a network that can be named, where it comes from, and what its source leaves open. */
import {
  type Connection,
  caffePixels,
  concatenate,
  connect,
  functional,
  type Layer,
  type Model,
  resizing,
} from '../nn/index.ts'
import { checkInteger, UsageError } from '../util/errors.ts'
import { centredPixels } from './parts.ts'

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

/** What is known of a network whose weights, trained on ImageNet, are published. */
export interface Pretrained {
  /** How their images were prepared: BGR less means, or pixels in -1..1; Keras's words for it. */
  readonly preprocessing: 'caffe' | 'tf'
  /** The layers after the backbone, which Keras's `include_top=False` leaves out. */
  readonly head: readonly string[]
}

/** How a network is fitted to images other than those it was made for. */
export interface BuildOptions {
  /**
   * `'imagenet'`: pixels prepared as for the published weights; grey images are repeated as red, green and
   * blue. Default: `'own'`, pixels in the network's own range.
   */
  readonly preprocessing?: 'own' | 'imagenet'
  /** [height, width] that images are resized to inside the network, bilinearly. Default: as they are. */
  readonly resize?: readonly [number, number]
  /** Repeats grey images as red, green and blue. Default: as `preprocessing` needs. */
  readonly colour?: boolean
  /**
   * `'pooling'`: global average pooling and one dense layer in the place of the network's own head. Default:
   * `'own'`.
   */
  readonly top?: 'own' | 'pooling'
}

/** A network that can be named on the command line. */
export interface Architecture extends Facts {
  /** Pixels of the least height and width that all its windows fit in. */
  readonly least: number
  /** Absent where no weights are published. */
  readonly pretrained?: Pretrained
  /**
   * The network for images [height, width, channels] and a number of classes.
   *
   * @throws UsageError where the images are too small, an extent is no positive whole number, or an option
   *   asks for what the architecture does not have
   */
  build(input: readonly [number, number, number], classes: number, options?: BuildOptions): Model
}

/** The places of a network that options change. */
export interface Variable {
  /** What stands first: pixels to the range that the network computes with. */
  readonly pixels: Layer
  readonly top: 'own' | 'pooling'
}

interface Definition extends Facts {
  /** Default: 1. */
  readonly least?: number
  readonly pretrained?: Pretrained
  /** From images to logits. */
  readonly network: (images: Connection, classes: number, variable: Variable) => Connection
}

/** An architecture that checks what it is built for. */
export function architecture({ least = 1, network, ...facts }: Definition): Architecture {
  const { name, pretrained } = facts
  return {
    ...facts,
    least,
    build(input, classes, { preprocessing = 'own', resize, top = 'own', colour } = {}) {
      const [height, width, channels] = input
      checkInteger(name, 'height', height, 1)
      checkInteger(name, 'width', width, 1)
      checkInteger(name, 'channels', channels, 1)
      checkInteger(name, 'classes', classes, 1)
      const sides = resize ?? [height, width]
      if (Math.min(...sides) < least)
        throw new UsageError(
          `${name}: expected images of at least ${least} x ${least} pixels, received ${sides.join(' x ')}`,
        )
      if ((preprocessing !== 'own' || top !== 'own') && !pretrained)
        throw new UsageError(
          `${name}: expected its own preprocessing and head, received ${preprocessing === 'own' ? top : preprocessing}; no weights trained on ImageNet are published for it`,
        )
      if (preprocessing === 'imagenet' && channels !== 1 && channels !== 3)
        throw new UsageError(
          `${name}: expected images of 1 or 3 channels for ImageNet's preprocessing, received ${channels}`,
        )
      const caffe = preprocessing === 'imagenet' && pretrained?.preprocessing === 'caffe'
      const variable: Variable = { pixels: caffe ? caffePixels() : centredPixels(), top }
      return functional({ name, input }, images => {
        const sized = resize ? connect(resizing({ height: resize[0], width: resize[1] }), images) : images
        const coloured =
          (colour ?? preprocessing === 'imagenet') && channels === 1
            ? connect(concatenate({ name: 'grey_to_rgb' }), sized, sized, sized)
            : sized
        return network(coloured, classes, variable)
      })
    },
  }
}
