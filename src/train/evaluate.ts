/** Evaluation of a model's current state on some images. */
import { compileEvaluation, type EvaluateProgram } from '../compile/evaluate-program.ts'
import type { DataSet } from '../data/data-set.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel } from '../nn/build.ts'
import type { Model } from '../nn/model.ts'
import type { Engine, Program } from '../runtime/engine.ts'
import { UsageError } from '../util/errors.ts'
import { type HostTensor, hostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
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

/** Of a multiple of so many images, kernels have whole vectors and threads equal shares. */
const UNIT = 32
/** What is done with weights is done once for so many images; of more, maps leave the caches. */
const MOST_IMAGES = 128
/** The same where no layer gives more than {@link DENSE_VALUES} for an image, as in dense nets. */
const MOST_OF_DENSE = 512
const DENSE_VALUES = 4096
/** Values of the largest map of a minibatch: 64 MB. */
const MAP_VALUES = 2 ** 24
/** The most that a minibatch is larger than it need be. */
const FILLED = 1 / 8

/** Images that are evaluated together, at most: a multiple of {@link UNIT}; see {@link minibatchOf}. */
export function mostImages(model: Model): number {
  const images = input('images', 'float32', [1, ...model.input])
  const { outputs } = buildModel(model, images, { training: false })
  const largest = Math.max(...[...outputs.values()].map(({ shape }) => sizeOf(shape)))
  const most = largest > DENSE_VALUES ? MOST_IMAGES : MOST_OF_DENSE
  return UNIT * Math.max(1, Math.floor(Math.min(most, MAP_VALUES / largest) / UNIT))
}

/** Images of each minibatch, where as few minibatches as may be hold `count` images, and none more than `most`. */
export function minibatchOf(count: number, most: number): number {
  const least = Math.ceil(count / Math.ceil(count / most))
  const whole = UNIT * Math.ceil(least / UNIT)
  return whole <= (1 + FILLED) * least ? whole : least
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

  /**
   * Evaluates the images at `indices` of a stored split: `images` and `labels` name its tensors.
   *
   * @throws UsageError where there are none
   */
  async evaluate(stored: { images: string; labels: string }, indices: Int32Array): Promise<Evaluation> {
    const count = indices.length
    if (count === 0)
      throw new UsageError(
        `evaluation of model "${this.spec.model.name}": expected at least one image, received none`,
      )
    const batch = minibatchOf(count, this.most)
    const steps = Math.ceil(count / batch)
    // The last image fills the last minibatch, so that one program evaluates all.
    const order = new Int32Array(steps * batch).fill(indices.at(-1)!)
    order.set(indices)
    const program = await this.program(batch)
    const { loss, correct, predicted, penalty } = await program.run({
      feeds: {
        steps: hostTensor('int64', [], [steps]),
        order: { dtype: 'int32', shape: [steps, batch], data: order },
      },
      bind: stored,
    })
    const meanOf = ({ data }: HostTensor) =>
      (data as Float32Array).subarray(0, count).reduce((sum, value) => sum + value, 0) / count
    return {
      images: count,
      loss: meanOf(loss!) + Number(penalty!.data[0]),
      accuracy: meanOf(correct!),
      predicted: (predicted!.data as Int32Array).slice(0, count),
    }
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
