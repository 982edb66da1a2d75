/** Model + trained values -> a self-contained ONNX model that any runtime can read. */
import { softmax } from '../graph/ops/reduce.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel } from '../nn/build.ts'
import type { Model } from '../nn/model.ts'
import { encodeModel } from '../onnx/encode.ts'
import { FoveaError } from '../util/errors.ts'
import { hashBytes } from '../util/hash.ts'
import { type HostTensor, sameShape, showShape } from '../util/host-tensor.ts'
import { emitGraph, modelOf } from './emit.ts'
import { nameOfInput, type ProgramBytes } from './program.ts'

/**
 * Compiles a prediction program of ONNX's own Conv, MaxPool and MatMul, with the trained values inside.
 *
 * Input: `images` float32 [N, H, W, C], pixel values 0 to 255. Output: `probabilities` float32 [N, classes].
 *
 * @param values parameters and buffers by name
 * @throws FoveaError where a value is missing or of another shape
 */
export function compilePrediction(
  model: Model,
  values: Readonly<Record<string, HostTensor>>,
  batchSize = 1,
): ProgramBytes {
  const images = input('images', 'float32', [batchSize, ...model.input])
  const built = buildModel(model, images, { training: false })
  const state = [...built.parameters, ...built.buffers].map(({ tensor }) => tensor)
  const graph = emitGraph([{ name: 'probabilities', tensor: softmax(built.logits) }], [images], {
    name: `predict ${model.name}`,
    portable: true,
  })
  const read = new Set(graph.nodes.flatMap(node => node.inputs))
  const initializers = state.map(tensor => {
    const name = nameOfInput(tensor)
    const value = values[name]
    if (!value || !sameShape(value.shape, tensor.shape))
      throw new FoveaError(
        `model "${model.name}": expected values ${showShape(tensor.shape)} for "${name}", received ${value ? showShape(value.shape) : 'none'}`,
      )
    return { name, tensor: value }
  })
  const bytes = encodeModel(
    modelOf({
      ...graph,
      initializers: [...graph.initializers, ...initializers.filter(({ name }) => read.has(name))],
    }),
  )
  return { bytes, hash: hashBytes(bytes) }
}
