/**
 * Scaled dot-product attention, softmax(scale q k') v. Vaswani et al. 2017, arXiv 1706.03762.
 */
import { UsageError } from '../../util/errors.ts'
import { showShape, sizeOf } from '../../util/host-tensor.ts'
import { apply, type OpDefinition, type Tensor } from '../node.ts'
import { mul, neg } from './elementwise.ts'
import { matMul, reduceSum, softmax } from './reduce.ts'
import { concat } from './shape.ts'
import { filled, sameDType } from './source.ts'

interface DotProductAttributes {
  readonly scale: number
  /** Up to so many weights the gradient reads those of the forward pass; more of them are made again. */
  readonly mostKept: number
}

/** More weights than these go to memory and come back, which takes longer than to make them where they are read. */
const MOST_KEPT = 2 ** 24

// y = P v, P = softmax(s q k'). With dP = dy v':
//   dv = P' dy, dq = s dS k, dk = s dS' q, dS = P (dP - r), where r, each row's sum of P dP, is that of y dy
// too, of far fewer values (Dao et al. 2022, arXiv 2205.14135, B.2). A column more in both factors, -r and 1,
// subtracts it within the product.
export const DotProductAttention: OpDefinition = {
  op: 'DotProductAttention',
  shape([q, k, v]) {
    const [a, b, c] = [q!.shape, k!.shape, v!.shape]
    const batches = [a, b, c].map(shape => shape.slice(0, -2).join())
    if (a.length < 2 || new Set(batches).size > 1 || a.at(-1) !== b.at(-1) || b.at(-2) !== c.at(-2))
      throw new UsageError(
        `DotProductAttention: expected queries [..., T, D], keys [..., S, D] and values [..., S, E], received ${[a, b, c].map(showShape).join(', ')}`,
      )
    return {
      dtype: sameDType('DotProductAttention', [q!, k!, v!]),
      shape: [...a.slice(0, -1), c.at(-1)!],
    }
  },
  gradient(node, [dy]) {
    const [q, k, v] = node.inputs as readonly [Tensor, Tensor, Tensor]
    const { scale, mostKept } = node.attributes as DotProductAttributes
    const again = sizeOf(q.shape.slice(0, -1)) * k.shape.at(-2)! > mostKept
    const weights = attentionWeights(q, k, scale, { again })
    const received = neg(reduceSum(mul(dy!, node.outputs[0]!), [-1]))
    const ones = filled([...v.shape.slice(0, -1), 1], 1, v.dtype)
    const dScores = mul(weights, matMul(concat([dy!, received], -1), concat([v, ones], -1), { transB: true }))
    return [
      matMul(dScores, k, { scale }),
      matMul(dScores, q, { transA: true, scale }),
      matMul(weights, dy!, { transA: true }),
    ]
  },
  expand({ inputs: [q, k, v], attributes: { scale } }) {
    return matMul(attentionWeights(q!, k!, scale), v!)
  },
}

/**
 * softmax(scale q k'): for queries [..., T, D] and keys [..., S, D] the weights [..., T, S]; each row sums to 1.
 *
 * @param options `again`: whether they are made even where equal ones have been, which then need not be kept
 */
export function attentionWeights(q: Tensor, k: Tensor, scale = 1, { again = false } = {}): Tensor {
  return softmax(matMul(q, k, { transB: true, scale, again }))
}

/** softmax(scale q k') v for queries [..., T, D], keys [..., S, D] and values [..., S, E]: [..., T, E]. */
export function dotProductAttention(q: Tensor, k: Tensor, v: Tensor, scale = 1): Tensor {
  return apply(DotProductAttention, [q, k, v], { scale, mostKept: MOST_KEPT })
}
