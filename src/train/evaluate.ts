/** Evaluation of a model's current state on some images. */
import { compileEvaluation, type EvaluateProgram } from '../compile/evaluate-program.ts'
import type { DataSet } from '../data/data-set.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel } from '../nn/build.ts'
import type { Model } from '../nn/model.ts'
import type { Engine, Program } from '../runtime/engine.ts'
import { UsageError } from '../util/errors.ts'
import { hostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
import type { TrainingSpec } from './spec.ts'

/** A split's result. */
export interface Evaluation {
  readonly images: number
  /** Mean over images, with the model's penalties, as in training. */
  readonly loss: number
  /** Fraction 0..1. */
  readonly accuracy: number
  /** The predicted class of each image, in the order of the indices. */
  readonly predicted: Int32Array
}

/**
 * Throws a UsageError unless a model has as many logits as a data set has classes. Without it a label beyond
 * the logits would only lose its share of the loss.
 */
export function checkClasses(model: Model, { name, imageShape, classes }: DataSet): void {
  if (showShape(model.input) !== showShape(imageShape))
    throw new UsageError(
      `model "${model.name}": expected images ${showShape(['N', ...model.input])}, received those of ${name}, ${showShape(['N', ...imageShape])}`,
    )
  const images = input('images', 'float32', [1, ...model.input])
  const { logits } = buildModel(model, images, { training: false })
  const count = logits.shape[1]
  if (count !== classes.length)
    throw new UsageError(
      `model "${model.name}": layer "${model.output}" gives ${count} logits, expected ${classes.length}, one for each class of ${name}`,
    )
}

/** Values of the largest map of a minibatch: what is read next then still lies in the cache. */
const MAP_VALUES = 2 ** 20
/** Of a dense net: enough that the weights are read seldom. */
const MOST_IMAGES = 500
const LEAST_IMAGES = 32

/**
 * Images that are evaluated together, at most; see {@link evenBatch}. Measured on one core: convolutions at 32 to 64
 * images are up to a fifth faster than at 500, in a tenth of the memory, dense nets a fifth slower.
 */
function mostImages(model: Model): number {
  const images = input('images', 'float32', [1, ...model.input])
  const { outputs } = buildModel(model, images, { training: false })
  const largest = Math.max(...[...outputs.values()].map(({ shape }) => sizeOf(shape)))
  return Math.min(MOST_IMAGES, Math.max(LEAST_IMAGES, Math.floor(MAP_VALUES / largest)))
}

/**
 * The largest divisor of `count` from half of `most` on, so that no smaller minibatch is left, which would need a
 * program of its own; `most` where there is none.
 */
export function evenBatch(count: number, most: number): number {
  if (count <= most) return count
  for (let batch = most; 2 * batch >= most; batch--) if (count % batch === 0) return batch
  return most
}

/** What of a trial its evaluation depends on. */
type EvaluationSpec = Pick<TrainingSpec, 'model' | 'loss' | 'frozen' | 'convolution'>

/** Evaluates a model on an engine that holds its parameters, its buffers and the images. */
export class Evaluator {
  private readonly programs = new Map<number, Program>()
  private readonly engine: Engine
  private readonly spec: EvaluationSpec
  private readonly most: number

  constructor(engine: Engine, spec: EvaluationSpec) {
    this.engine = engine
    this.spec = spec
    this.most = mostImages(spec.model)
  }

  /** Evaluates the images at `indices` of a stored split: `images` and `labels` name its tensors. */
  async evaluate(stored: { images: string; labels: string }, indices: Int32Array): Promise<Evaluation> {
    const count = indices.length
    const batch = evenBatch(count, this.most)
    const whole = Math.floor(count / batch)
    const parts = [{ batch, steps: whole, from: 0 }]
    if (whole * batch < count) parts.push({ batch: count - whole * batch, steps: 1, from: whole * batch })
    let loss = 0
    let correct = 0
    let penalty = 0
    const predicted = new Int32Array(count)
    for (const { batch: size, steps, from } of parts) {
      const program = await this.program(size)
      const result = await program.run({
        feeds: {
          steps: hostTensor('int64', [], [steps]),
          order: { dtype: 'int32', shape: [steps, size], data: indices.slice(from, from + steps * size) },
        },
        bind: stored,
      })
      for (const value of result.loss!.data as Float32Array) loss += value
      for (const value of result.correct!.data as Float32Array) correct += value
      penalty = Number(result.penalty!.data[0])
      predicted.set(result.predicted!.data as Int32Array, from)
    }
    return { images: count, loss: loss / count + penalty, accuracy: correct / count, predicted }
  }

  /** Frees the programs. */
  async release(): Promise<void> {
    for (const program of this.programs.values()) await program.release()
    this.programs.clear()
  }

  private async program(batchSize: number): Promise<Program> {
    const known = this.programs.get(batchSize)
    if (known) return known
    const { model, loss, frozen, convolution } = this.spec
    const compiled: EvaluateProgram = compileEvaluation(model, loss, batchSize, {
      ...(frozen ? { frozen } : {}),
      ...(convolution ? { convolution } : {}),
    })
    const program = await this.engine.load(compiled.bytes)
    this.programs.set(batchSize, program)
    return program
  }
}
