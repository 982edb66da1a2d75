/**
 * Ops of losses and of penalties, with gradients of fewer passes than those of the compositions that they
 * stand for.
 */
import { UsageError } from '../../util/errors.ts'
import { sameShape, showShape } from '../../util/host-tensor.ts'
import { apply, type GradientRule, type OpDefinition, type Tensor } from '../node.ts'
import { clip, mul, neg, sub } from './elementwise.ts'
import { logSoftmax, reduceSum, softmax } from './reduce.ts'
import { reshape } from './shape.ts'
import { sameDType } from './source.ts'

// l_n = -sum_k t_nk ln softmax(x_n)_k, for targets t that sum to 1 over k.
// dx = (softmax(x) - t) dl, dt = -ln softmax(x) dl
export const SoftmaxCrossEntropy: OpDefinition = {
  op: 'SoftmaxCrossEntropy',
  shape([logits, targets]) {
    if (logits!.shape.length !== 2 || !sameShape(logits!.shape, targets!.shape))
      throw new UsageError(
        `SoftmaxCrossEntropy: expected logits and targets of one shape [N, classes], received ${showShape(logits!.shape)} and ${showShape(targets!.shape)}`,
      )
    return {
      dtype: sameDType('SoftmaxCrossEntropy', [logits!, targets!]),
      shape: logits!.shape.slice(0, 1),
    }
  },
  gradient({ inputs: [logits, targets] }, [dl]) {
    const column = reshape(dl!, [logits!.shape[0]!, 1])
    return [mul(sub(softmax(logits!), targets!), column), neg(mul(logSoftmax(logits!), column))]
  },
  expand: ({ inputs: [logits, targets], outputs: [l] }) =>
    neg(reshape(reduceSum(mul(targets!, logSoftmax(logits!)), [1]), l!.shape)),
}

/**
 * The cross-entropy of `softmax(logits)` against `targets`, both [N, classes], the targets summing to 1:
 * shape [N].
 */
export function softmaxCrossEntropy(logits: Tensor, targets: Tensor): Tensor {
  return apply(SoftmaxCrossEntropy, [logits, targets])
}

/** An op that reduces all values to one scalar. */
function total(op: string, gradient: GradientRule): OpDefinition {
  return {
    op,
    shape: ([x]) => ({ dtype: x!.dtype, shape: [] }),
    gradient,
    onnx: (lowering, inputs) => lowering.emit(op, inputs, { keepdims: { int: 0 } }),
  }
}

// sum x^2: dx = (2 dy) x
export const ReduceSumSquare = total('ReduceSumSquare', ({ inputs: [x] }, [dy]) => [mul(x!, mul(dy!, 2))])

// sum |x|: dx = dy sign(x). A clipped steep line is the sign, 0 at 0, and is vectorized where Sign is not.
export const ReduceL1 = total('ReduceL1', ({ inputs: [x] }, [dy]) => [mul(clip(mul(x!, 3e38), -1, 1), dy!)])

/** The sum of all squares, a scalar. */
export const sumOfSquares = (x: Tensor): Tensor => apply(ReduceSumSquare, [x])

/** The sum of all absolute values, a scalar. */
export const sumOfMagnitudes = (x: Tensor): Tensor => apply(ReduceL1, [x])
