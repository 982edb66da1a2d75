/** Runs a symbolic graph for a test: emitted as ONNX, computed by ONNX Runtime on the CPU. */
import * as ort from 'onnxruntime-node'
import { emitGraph, modelOf } from '../src/compile/emit.ts'
import { type Tensor, topological } from '../src/graph/node.ts'
import { Input } from '../src/graph/ops/source.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import { type HostTensor, showShape, type TensorData } from '../src/util/host-tensor.ts'

/**
 * The values of `outputs`. `feeds` gives each input of the graph by its name; one that no output depends on
 * may be left out or given in vain.
 */
export async function evaluate(
  outputs: readonly Tensor[],
  feeds: Readonly<Record<string, HostTensor>> = {},
): Promise<HostTensor[]> {
  const inputs = topological(outputs)
    .filter(node => node.op === Input)
    .map(node => node.outputs[0]!)
  const values: Record<string, ort.Tensor> = {}
  for (const { node, dtype, shape } of inputs) {
    const name: string = node.attributes.name
    const feed = feeds[name]
    if (feed?.dtype !== dtype || showShape(feed.shape) !== showShape(shape))
      throw new Error(
        `evaluate: input "${name}" is ${dtype} ${showShape(shape)}, fed ${feed?.dtype} ${showShape(feed?.shape ?? [])}`,
      )
    values[name] = new ort.Tensor(dtype, feed.data as Float32Array, [...shape])
  }
  const named = outputs.map((tensor, i) => ({ name: `output_${i}`, tensor }))
  const session = await ort.InferenceSession.create(encodeModel(modelOf(emitGraph(named, inputs))), {
    intraOpNumThreads: 1,
  })
  try {
    const results = await session.run(values)
    return named.map(({ name, tensor }) => {
      const result = results[name]!
      if (result.type !== tensor.dtype || showShape(result.dims) !== showShape(tensor.shape))
        throw new Error(
          `evaluate: ${tensor.node.op.op} promised ${tensor.dtype} ${showShape(tensor.shape)} and gave ${result.type} ${showShape(result.dims)}`,
        )
      return { dtype: tensor.dtype, shape: tensor.shape, data: result.data as TensorData }
    })
  } finally {
    await session.release()
  }
}
