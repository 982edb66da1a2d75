/** What a file of weights holds, whatever its format. */
import type { HostTensor } from '../util/host-tensor.ts'

export type WeightsFormat = 'safetensors' | 'keras-legacy-h5' | 'keras-weights-h5' | 'keras' | 'onnx'

/** A tensor of a file. */
export interface FileTensor {
  /** As the file names it: `block1_conv1/kernel:0`, `layers/conv2d/vars/0`. */
  readonly name: string
  /** Fovea's word for what it is to its layer (`kernel`, `movingMean`); undefined where only its place tells. */
  readonly role: string | undefined
  /** float32, in Fovea's layout. */
  readonly tensor: HostTensor
}

/** The tensors of one layer. */
export interface FileLayer {
  /** The layer's own name, or undefined where the file tells only its kind. */
  readonly name: string | undefined
  /** Fovea's kind of layer (`conv2d`), where the file tells it. */
  readonly kind: string | undefined
  /** In the order of the file, which is Keras's order within a layer. */
  readonly tensors: readonly FileTensor[]
}

/** The tensors of a file, layer by layer. */
export interface NamedTensors {
  /** The file, for messages. */
  readonly path: string
  readonly format: WeightsFormat
  /** Those that have tensors, in the order of the file. */
  readonly layers: readonly FileLayer[]
}
