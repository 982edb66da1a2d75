/** Model + loss -> a program that evaluates whole splits in one call of the runtime. */
import { add } from '../graph/ops/elementwise.ts'
import { scalar } from '../graph/ops/source.ts'
import { type BuildOptions, buildModel } from '../nn/build.ts'
import { type Loss, lossPerExample } from '../nn/losses.ts'
import type { Model } from '../nn/model.ts'
import { encodeModel } from '../onnx/encode.ts'
import { hashBytes } from '../util/hash.ts'
import { modelOf } from './emit.ts'
import {
  dataInputs,
  gatherMinibatch,
  isCorrect,
  loopGraph,
  type ProgramBytes,
  predictedClass,
  typeOf,
} from './program.ts'

export interface EvaluateProgram extends ProgramBytes {
  readonly batchSize: number
}

/**
 * Compiles an evaluation program.
 *
 * Inputs: `steps` int64 scalar; `images` uint8 [rows, H, W, C]; `labels` int32 [rows]; `order` int32 [steps,
 * N]; and the model's parameters and buffers. Outputs, for each image: `loss` float32 [steps, N], without
 * penalties; `correct` float32 [steps, N], 1 or 0; `predicted` int32 [steps, N], the class; and `penalty`
 * float32 scalar, the sum of the regularizers.
 *
 * @param options.frozen names of layers whose regularizers do not count. Default: none
 * @param options.convolution how convolutions are computed where they can be. Default: as is fastest
 */
export function compileEvaluation(
  model: Model,
  loss: Loss,
  batchSize: number,
  options: Pick<BuildOptions, 'frozen' | 'convolution'> = {},
): EvaluateProgram {
  const batch = gatherMinibatch(model, batchSize)
  const built = buildModel(model, batch.images, { ...options, training: false })
  const predicted = predictedClass(built.logits)
  const state = [...built.parameters, ...built.buffers].map(({ tensor }) => typeOf(tensor))
  const graph = loopGraph({
    name: `evaluate ${model.name}`,
    shared: [...dataInputs(model, batchSize), ...state],
    carried: [],
    perStep: [
      { name: 'loss', tensor: lossPerExample(loss, built.logits, batch.labels) },
      { name: 'correct', tensor: isCorrect(predicted, batch.labels) },
      { name: 'predicted', tensor: predicted },
    ],
    // Added to a constant, so that a model without regularizers has the output too.
    end: [{ name: 'penalty', tensor: built.penalty ? add(built.penalty, scalar(0)) : scalar(0) }],
  })
  const bytes = encodeModel(modelOf(graph))
  return { bytes, hash: hashBytes(bytes), batchSize }
}
