/** What a file of weights holds, whatever its format. */
import type { HostTensor } from '../util/host-tensor.ts'
import { roleOf } from './keras-names.ts'

/** `run`: what a trial of Fovea keeps, with the model that it is of. */
export type WeightsFormat = 'run' | 'safetensors' | 'keras-legacy-h5' | 'keras-weights-h5' | 'keras' | 'onnx'

/** A tensor of a file. */
export interface FileTensor {
  /** As the file names it: `block1_conv1/kernel:0`, `layers/conv2d/vars/0`. */
  readonly name: string
  /**
   * Fovea's word for what it is to its layer (`kernel`, `movingMean`); undefined where only its place tells.
   */
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
  /** Those that have tensors, in the order of the network; of safetensors, in any. */
  readonly layers: readonly FileLayer[]
}

/** Whether tensors are named and laid out as Fovea's own. */
export const hasOwnNames = ({ format }: NamedTensors): boolean => format === 'run' || format === 'safetensors'

/** The layers of tensors with Fovea's own names, such as `block1_conv1/kernel`. */
export function foveaLayers(tensors: Iterable<readonly [string, HostTensor]>): FileLayer[] {
  const layers = new Map<string, FileTensor[]>()
  for (const [name, tensor] of tensors) {
    if (tensor.dtype !== 'float32' && tensor.dtype !== 'float64') continue
    const slash = name.lastIndexOf('/')
    const data = tensor.dtype === 'float32' ? tensor.data : Float32Array.from(tensor.data as Float64Array)
    const entry = {
      name,
      role: roleOf(name) ?? name.slice(slash + 1),
      tensor: { ...tensor, dtype: 'float32', data },
    } as const
    const layer = name.slice(0, Math.max(0, slash))
    layers.set(layer, [...(layers.get(layer) ?? []), entry])
  }
  return [...layers].map(([name, own]) => ({ name, kind: undefined, tensors: own }))
}
