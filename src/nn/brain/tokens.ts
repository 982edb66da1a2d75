/** What attention layers share: positions as tokens, and the scaled dot product. */
import type { Tensor } from '../../graph/node.ts'
import { mul } from '../../graph/ops/elementwise.ts'
import { batchInward, batchOutward } from '../../graph/ops/pool.ts'
import { matMul, softmax } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'

/** Feature maps [H, W, N, C] as tokens [N, H W, C]. */
export function positions(x: Tensor): Tensor {
  return reshape(batchOutward(x), [x.shape[2]!, x.shape[0]! * x.shape[1]!, x.shape[3]!])
}

/** Tokens [N, H W, C'] as feature maps [H, W, N, C'] of the size of `like`. */
export function mapsOf(tokens: Tensor, like: Tensor): Tensor {
  const [h, w, n] = like.shape as unknown as readonly [number, number, number]
  return batchInward(reshape(tokens, [n, h, w, tokens.shape[2]!]))
}

/** softmax(scale q k'): for queries and keys [..., T, D] the weights [..., T, T]; each row sums to 1. */
export function attentionWeights(q: Tensor, k: Tensor, scale = 1): Tensor {
  return softmax(matMul(mul(q, scale), k, { transB: true }))
}
