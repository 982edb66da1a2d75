/**
 * The weights of an ONNX model, layer by layer: initializers (or constants) that Conv, Gemm, MatMul and
 * BatchNormalization read, in the order of the nodes, brought from ONNX's layouts into Fovea's.
 */

import { floatOf, intOf, intsOf } from '../onnx/attributes.ts'
import { decodeModel } from '../onnx/decode.ts'
import type { OnnxGraph, OnnxNode } from '../onnx/model.ts'
import { FoveaError } from '../util/errors.ts'
import { type HostTensor, sizeOf } from '../util/host-tensor.ts'
import type { FileLayer, FileTensor } from './named-tensors.ts'

/** Reads a model's bytes; `where` names the file in errors. */
export function onnxLayers(bytes: Uint8Array, where: string): FileLayer[] {
  const graph = new Graph(decoded(bytes, where), where)
  const layers = graph.nodes.flatMap(node => graph.layerOf(node) ?? [])
  if (layers.length > 0) return layers
  throw new FoveaError(
    `${where}: expected an ONNX model with weights of Conv, Gemm, MatMul or BatchNormalization, received none`,
  )
}

function decoded(bytes: Uint8Array, where: string): OnnxGraph {
  try {
    return decodeModel(bytes, { widen: true }).graph
  } catch (error) {
    if (!(error instanceof FoveaError)) throw error
    const hint = error.message.includes('another file')
      ? '; save the model as one file (external_data=False)'
      : ''
    throw new FoveaError(`${where}: ${error.message}${hint}`)
  }
}

class Graph {
  readonly nodes: readonly OnnxNode[]
  private readonly where: string
  private readonly inputs: OnnxGraph['inputs']
  private readonly constants = new Map<string, HostTensor>()
  private readonly producers = new Map<string, OnnxNode>()
  private readonly readers = new Map<string, OnnxNode[]>()

  constructor({ nodes, initializers, inputs }: OnnxGraph, where: string) {
    this.nodes = nodes
    this.where = where
    this.inputs = inputs
    for (const { name, tensor } of initializers) this.constants.set(name, tensor)
    for (const node of nodes) {
      const { value } = node.attributes
      if (node.op === 'Constant' && value && 'tensor' in value)
        this.constants.set(node.outputs[0]!, value.tensor)
      for (const output of node.outputs) this.producers.set(output, node)
      for (const name of node.inputs) this.readers.set(name, [...(this.readers.get(name) ?? []), node])
    }
  }

  layerOf(node: OnnxNode): FileLayer | undefined {
    if (node.op === 'Conv') return this.convolution(node)
    if (node.op === 'Gemm' || node.op === 'MatMul') return this.dense(node)
    if (node.op === 'BatchNormalization') return this.normalization(node)
    return undefined
  }

  /** Kernels [out, in / groups, kH, kW]. */
  private convolution(node: OnnxNode): FileLayer | undefined {
    const kernel = this.constant(node.inputs[1])
    if (kernel?.shape.length !== 4) return undefined
    const [outputs, inputs, height, width] = kernel.shape as readonly [number, number, number, number]
    const turned = permuted(kernel, [2, 3, 1, 0])
    const groups = intOf(node.attributes.group, 1)
    const depthwise = groups > 1 && inputs === 1
    const tensor = depthwise ? { ...turned, shape: [height, width, groups, outputs / groups] } : turned
    return this.layer(node.inputs[1]!, depthwise ? 'depthwiseConv2d' : 'conv2d', [
      { name: node.inputs[1]!, role: 'kernel', tensor },
      ...this.bias(node, node.inputs[2], outputs),
    ])
  }

  /** Matrices [in, out], or [out, in] where Gemm transposes them. */
  private dense(node: OnnxNode): FileLayer | undefined {
    const matrix = this.constant(node.inputs[1])
    if (matrix?.shape.length !== 2) return undefined
    const { transA, transB, alpha, beta } = node.attributes
    if (intOf(transA, 0) !== 0 || floatOf(alpha, 1) !== 1 || floatOf(beta, 1) !== 1)
      throw new FoveaError(
        `${this.where}: "${node.inputs[1]}": expected a Gemm without transA, alpha and beta, received one with them`,
      )
    const kernel = intOf(transB, 0) === 1 ? permuted(matrix, [1, 0]) : matrix
    const channels = this.flattened(node)
    return this.layer(node.inputs[1]!, 'dense', [
      {
        name: node.inputs[1]!,
        role: 'kernel',
        tensor: channels === undefined ? kernel : channelsLast(kernel, channels),
      },
      ...this.bias(node, node.inputs[2], kernel.shape[1]!),
    ])
  }

  private normalization(node: OnnxNode): FileLayer {
    const roles = ['gamma', 'beta', 'movingMean', 'movingVariance']
    const tensors = roles.flatMap((role, i) => {
      const name = node.inputs[i + 1]
      const tensor = this.constant(name)
      return tensor ? [{ name: name!, role, tensor }] : []
    })
    return this.layer(node.inputs[1]!, 'batchNormalization', tensors)
  }

  /** What a node adds to each output: its own input, or that of an Add behind it. */
  private bias(node: OnnxNode, own: string | undefined, outputs: number): FileTensor[] {
    const readers = this.readers.get(node.outputs[0]!) ?? []
    const add = readers.length === 1 && readers[0]!.op === 'Add' ? readers[0]! : undefined
    const name = own ?? add?.inputs.find(input => this.constants.has(input))
    const tensor = this.constant(name)
    if (!tensor || sizeOf(tensor.shape) !== outputs) return []
    return [{ name: name!, role: 'bias', tensor: { ...tensor, shape: [outputs] } }]
  }

  /**
   * The name before its last part: `features.0` of `features.0.weight`, `block1/conv1` of
   * `block1/conv1/kernel`.
   */
  private layer(tensor: string, kind: string, tensors: readonly FileTensor[]): FileLayer {
    return { name: tensor.replace(/[./][^./]*$/, ''), kind, tensors }
  }

  private constant(name: string | undefined): HostTensor | undefined {
    if (name === undefined) return undefined
    const producer = this.producers.get(name)
    if (producer?.op === 'Identity') return this.constant(producer.inputs[0])
    const tensor = this.constants.get(name)
    if (!tensor || (tensor.dtype !== 'float32' && tensor.dtype !== 'float64')) return undefined
    return { ...tensor, dtype: 'float32', data: Float32Array.from(tensor.data as Float32Array) }
  }

  /**
   * The number of channels of the maps [N, C, H, W] that a node reads as vectors; undefined where it reads
   * none, or reads them with their channels last.
   */
  private flattened(node: OnnxNode): number | undefined {
    let name = node.inputs[0]!
    for (let producer = this.producers.get(name); producer; producer = this.producers.get(name)) {
      const { op, inputs, attributes } = producer
      if (op === 'Conv') return this.constant(inputs[1])?.shape[0]
      if (op === 'BatchNormalization') return this.constant(inputs[1])?.shape[0]
      if (op === 'Gemm' || op === 'MatMul') return undefined
      if (op === 'Transpose') {
        return intsOf(attributes.perm)?.join() === '0,2,3,1' ? undefined : this.unknown(producer)
      }
      name = inputs.find(input => !this.constants.has(input)) ?? inputs[0]!
    }
    const shape = this.inputs.find(input => input.name === name)?.shape
    const channels = shape?.length === 4 ? shape[1] : undefined
    return typeof channels === 'number' ? channels : undefined
  }

  private unknown({ op, outputs }: OnnxNode): never {
    throw new FoveaError(
      `${this.where}: "${outputs[0]}" (${op}): in which order the weights behind it expect rows, columns and channels cannot be told`,
    )
  }
}

/** Rows (channel, place) of a matrix to rows (place, channel): maps are flattened channels last. */
function channelsLast(kernel: HostTensor, channels: number): HostTensor {
  const [rows, columns] = kernel.shape as readonly [number, number]
  if (rows % channels !== 0 || rows === channels) return kernel
  const split = { ...kernel, shape: [channels, rows / channels, columns] }
  return { ...permuted(split, [1, 0, 2]), shape: [rows, columns] }
}

/** The tensor with its axes in another order. */
function permuted({ dtype, shape, data }: HostTensor, order: readonly number[]): HostTensor {
  const to = order.map(axis => shape[axis]!)
  const steps = order.map(axis => sizeOf(shape.slice(axis + 1)))
  const result = new Float32Array(data.length)
  const at = order.map(() => 0)
  for (let i = 0, from = 0; i < result.length; i++) {
    result[i] = Number(data[from])
    for (let axis = to.length - 1; axis >= 0; axis--) {
      from += steps[axis]!
      if (++at[axis]! < to[axis]!) break
      from -= steps[axis]! * to[axis]!
      at[axis] = 0
    }
  }
  return { dtype, shape: to, data: result }
}
