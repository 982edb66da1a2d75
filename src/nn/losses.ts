/** Losses: frozen descriptions, and their values per example on a graph. Named and scaled as in Keras 3. */
import type { Tensor } from '../graph/node.ts'
import { add, isFloat, mul, relu, sub } from '../graph/ops/elementwise.ts'
import { oneHot } from '../graph/ops/gather.ts'
import { softmaxCrossEntropy } from '../graph/ops/loss.ts'
import { reduceMax, reduceMean, reduceSum, softmax } from '../graph/ops/reduce.ts'
import { reshape } from '../graph/ops/shape.ts'
import { UsageError, unknownName } from '../util/errors.ts'
import { showShape } from '../util/host-tensor.ts'
import { checkFraction, withDefaults } from './options.ts'

type CrossEntropy = { readonly loss: 'crossEntropy'; readonly labelSmoothing: number }
type MeanSquaredError = { readonly loss: 'meanSquaredError'; readonly of: 'probabilities' | 'logits' }
type Margin = { readonly loss: 'hinge' | 'squaredHinge' | 'categoricalHinge' }

/** A loss of a classifier: a frozen description. */
export type Loss = CrossEntropy | MeanSquaredError | Margin

export type LossName = Loss['loss']

/**
 * `-sum_k t_k ln softmax(x)_k`, t the one-hot label mixed with the uniform distribution:
 * `t = (1 - labelSmoothing) onehot + labelSmoothing / classes`.
 *
 * @param options.labelSmoothing in [0, 1); default 0. Szegedy et al., CVPR 2016
 */
export function crossEntropy(options: { readonly labelSmoothing?: number } = {}): Loss {
  const full = withDefaults('crossEntropy', { labelSmoothing: 0 }, options)
  checkFraction('crossEntropy', 'labelSmoothing', full.labelSmoothing)
  return Object.freeze({ loss: 'crossEntropy', ...full })
}

/**
 * The mean over the classes of `(p - onehot)^2`.
 *
 * @param options.of what p is: `'probabilities'`, the softmax of the logits (default), or the `'logits'`
 *   themselves
 */
export function meanSquaredError(options: { readonly of?: 'probabilities' | 'logits' } = {}): Loss {
  const full = withDefaults('meanSquaredError', { of: 'probabilities' as const }, options)
  const known = ['probabilities', 'logits']
  if (!known.includes(full.of)) throw unknownName('"of" of meanSquaredError', String(full.of), known)
  return Object.freeze({ loss: 'meanSquaredError', ...full })
}

/**
 * The mean over the classes of `max(0, 1 - y x)`: y is 1 for the label and -1 for the others, x the logits.
 */
export const hinge = (): Loss => Object.freeze({ loss: 'hinge' })

/**
 * The mean over the classes of `max(0, 1 - y x)^2`: y is 1 for the label and -1 for the others, x the logits.
 */
export const squaredHinge = (): Loss => Object.freeze({ loss: 'squaredHinge' })

/**
 * `max(0, 1 + max(0, largest logit of the other classes) - logit of the label)`. The inner maximum with 0 is
 * Keras's: it masks the label's logit by multiplying it with 0. Crammer and Singer, JMLR 2001.
 */
export const categoricalHinge = (): Loss => Object.freeze({ loss: 'categoricalHinge' })

type Rule<L> = (loss: L, logits: Tensor, targets: Tensor) => Tensor

const rules: { readonly [N in LossName]: Rule<Extract<Loss, { readonly loss: N }>> } = {
  crossEntropy: ({ labelSmoothing }, logits, targets) =>
    softmaxCrossEntropy(logits, add(mul(targets, 1 - labelSmoothing), labelSmoothing / logits.shape[1]!)),
  meanSquaredError({ of }, logits, targets) {
    const error = sub(of === 'logits' ? logits : softmax(logits), targets)
    return reduceMean(mul(error, error), [1])
  },
  hinge: (_loss, logits, targets) => reduceMean(shortfall(logits, targets), [1]),
  squaredHinge(_loss, logits, targets) {
    const short = shortfall(logits, targets)
    return reduceMean(mul(short, short), [1])
  },
  categoricalHinge(_loss, logits, targets) {
    const label = reduceSum(mul(targets, logits), [1])
    const rival = reduceMax(mul(sub(1, targets), logits), [1])
    return relu(add(sub(rival, label), 1))
  },
}

/** `max(0, 1 - y x)` with y = 2 targets - 1. */
function shortfall(logits: Tensor, targets: Tensor): Tensor {
  return relu(sub(1, mul(sub(mul(targets, 2), 1), logits)))
}

/**
 * The loss of each example, on a graph; differentiable with respect to the logits.
 *
 * @param logits float [N, classes], what the model gives before any softmax
 * @param labels int32 [N], in 0 .. classes - 1
 * @returns shape [N], in the logits' dtype
 * @throws UsageError where the loss is unknown, or a shape or dtype does not fit
 */
export function lossPerExample(loss: Loss, logits: Tensor, labels: Tensor): Tensor {
  const name = loss.loss
  if (!Object.hasOwn(rules, name)) throw unknownName('loss', String(name), Object.keys(rules))
  if (logits.shape.length !== 2 || !isFloat(logits.dtype) || logits.shape[1]! < 2)
    throw new UsageError(
      `loss ${name}: expected float logits of shape [N, classes] with at least 2 classes, received ${logits.dtype} ${showShape(logits.shape)}`,
    )
  const [examples, classes] = logits.shape as [number, number]
  if (labels.shape.length !== 1 || labels.shape[0] !== examples || labels.dtype !== 'int32')
    throw new UsageError(
      `loss ${name}: expected int32 labels of shape [${examples}], one for each row of the logits ${showShape(logits.shape)}, received ${labels.dtype} ${showShape(labels.shape)}`,
    )
  const targets = oneHot(labels, classes, logits.dtype === 'float64' ? 'float64' : 'float32')
  const rule = rules[name] as Rule<Loss>
  return reshape(rule(loss, logits, targets), [examples])
}
