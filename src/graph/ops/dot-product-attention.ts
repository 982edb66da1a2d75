/**
 * Scaled dot-product attention, softmax(scale q k') v. Vaswani et al. 2017, arXiv 1706.03762.
 */
import { UsageError } from '../../util/errors.ts'
import { showShape } from '../../util/host-tensor.ts'
import { apply, type Node, type OpDefinition, type Tensor } from '../node.ts'
import { mul, neg } from './elementwise.ts'
import { matMul, reduceSum, softmax } from './reduce.ts'
import { concat } from './shape.ts'
import { filled, sameDType } from './source.ts'

interface DotProductAttributes {
  readonly scale: number
}

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
    const { scale } = node.attributes as DotProductAttributes
    const weights = weightsOf(node)
    const received = neg(reduceSum(mul(dy!, node.outputs[0]!), [-1]))
    const ones = filled([...v.shape.slice(0, -1), 1], 1, v.dtype)
    const dScores = mul(weights, matMul(concat([dy!, received], -1), concat([v, ones], -1), { transB: true }))
    return [
      mul(matMul(dScores, k), scale),
      matMul(dScores, mul(q, scale), { transA: true }),
      matMul(weights, dy!, { transA: true }),
    ]
  },
  expand: node => matMul(weightsOf(node), node.inputs[2]!),
}

const weights = new WeakMap<Node, Tensor>()

/** Made once: the result and the gradients read the same weights. */
function weightsOf(node: Node): Tensor {
  const [q, k] = node.inputs as readonly [Tensor, Tensor]
  const known = weights.get(node) ?? attentionWeights(q, k, (node.attributes as DotProductAttributes).scale)
  weights.set(node, known)
  return known
}

/** softmax(scale q k'): for queries [..., T, D] and keys [..., S, D] the weights [..., T, S]; each row sums to 1. */
export function attentionWeights(q: Tensor, k: Tensor, scale = 1): Tensor {
  return softmax(matMul(mul(q, scale), k, { transB: true }))
}

/** softmax(scale q k') v for queries [..., T, D], keys [..., S, D] and values [..., S, E]: [..., T, E]. */
export function dotProductAttention(q: Tensor, k: Tensor, v: Tensor, scale = 1): Tensor {
  return apply(DotProductAttention, [q, k, v], { scale })
}
