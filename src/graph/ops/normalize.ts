/** Batch normalization, with its gradient in the few passes over the data that it needs. */
import { sizeOf } from '../../util/host-tensor.ts'
import { applyAll, type OpDefinition, type Tensor } from '../node.ts'
import { add, mul, reciprocal, sqrt, sub } from './elementwise.ts'
import { reduceSum } from './reduce.ts'
import { reshape } from './shape.ts'

/** x - mean, and 1 / sqrt(variance + epsilon), of the columns of x [R, C]. */
function standardization(x: Tensor, epsilon: number) {
  const share = 1 / x.shape[0]!
  const mean = mul(reduceSum(x, [0]), share)
  const centred = sub(x, mean)
  const variance = mul(reduceSum(mul(centred, centred), [0]), share)
  return { mean, centred, variance, inverse: reciprocal(sqrt(add(variance, epsilon))) }
}

// y = gamma (x - mean) / sqrt(variance + epsilon) + beta over the rows of x [R, C]; also mean and (biased)
// variance [1, C].
// With xc = x - mean, i = 1 / sqrt(variance + epsilon), a = gamma i:
//   dbeta = sum dy, dgamma = i sum dy xc, dx = a (dy - xc i dgamma / R - dbeta / R)
// Ioffe and Szegedy 2015, arXiv 1502.03167
export const BatchNormalization: OpDefinition = {
  op: 'BatchNormalization',
  shape: ([x]) => [
    { dtype: x!.dtype, shape: x!.shape },
    { dtype: x!.dtype, shape: [1, x!.shape[1]!] },
    { dtype: x!.dtype, shape: [1, x!.shape[1]!] },
  ],
  gradient({ inputs: [x, gamma, beta], attributes }, [dy]) {
    if (!dy) return [undefined, undefined, undefined]
    const { centred, inverse } = standardization(x!, attributes.epsilon)
    const share = 1 / x!.shape[0]!
    const dbeta = reduceSum(dy, [0])
    const dgamma = mul(reduceSum(mul(dy, centred), [0]), inverse)
    const slope = mul(dgamma, mul(inverse, share))
    const residual = sub(sub(dy, mul(dbeta, share)), mul(centred, slope))
    const dx = mul(residual, mul(inverse, gamma!))
    return [dx, reshape(dgamma, gamma!.shape), reshape(dbeta, beta!.shape)]
  },
  expand({ inputs: [x, gamma, beta], attributes }) {
    const { mean, centred, variance, inverse } = standardization(x!, attributes.epsilon)
    return [add(mul(centred, mul(inverse, gamma!)), beta!), mean, variance]
  },
}

/**
 * Batch normalization of x [..., C] over all axes but the last, with this batch's statistics.
 * Returns y, and the mean and the biased variance [C], through which no gradient flows.
 */
export function batchNormalization(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: number) {
  const channels = x.shape.at(-1)!
  const rows = reshape(x, [sizeOf(x.shape) / channels, channels])
  const [y, mean, variance] = applyAll(BatchNormalization, [rows, gamma, beta], { epsilon })
  return {
    y: reshape(y!, x.shape),
    mean: reshape(mean!, [channels]),
    variance: reshape(variance!, [channels]),
  }
}
