/** What a graph costs: multiply-adds, the unit in which papers state it. */

import { sizeOf, toNumbers } from '../util/host-tensor.ts'
import { type Node, type OpDefinition, type Tensor, topological } from './node.ts'
import { ScalarAttention } from './ops/attention.ts'
import { Conv, GroupedConv } from './ops/conv.ts'
import { DotProductAttention } from './ops/dot-product-attention.ts'
import { FlattenedMatMul } from './ops/flattened.ts'
import { MatMul } from './ops/reduce.ts'
import { Constant } from './ops/source.ts'

/**
 * Each output of a convolution is a sum over the taps and the channels that it sees; w
 * [kH, kW, C / groups, K].
 */
const convolution = ({ inputs: [, w], outputs: [y] }: Node) => sizeOf(y!.shape) * sizeOf(w!.shape.slice(0, 3))

/** Of a fixed matrix, the share of values that multiply: a filter of few taps is mostly zeros as a matrix. */
function nonzeros({ node }: Tensor): number {
  if (node.op !== Constant) return 1
  const values = toNumbers(node.attributes.value)
  return values.filter(value => value !== 0).length / values.length
}

const matrixProduct = ({ inputs: [a, b], outputs: [c], attributes: { transA } }: Node) =>
  Math.round(sizeOf(c!.shape) * a!.shape.at(transA ? -2 : -1)! * nonzeros(a!) * nonzeros(b!))

/**
 * Multiply-adds by definition, whatever form a program computes them in. Taps in the padding count, as they
 * do in the figures that papers state, and so do connections that a mask removes.
 */
const products = new Map<OpDefinition, (node: Node) => number>([
  [Conv, convolution],
  [GroupedConv, convolution],
  [MatMul, matrixProduct],
  [FlattenedMatMul, matrixProduct],
  // T S scores of D products each, and T E results of S.
  [
    DotProductAttention,
    ({ inputs: [q, k, v] }) =>
      (sizeOf(q!.shape) + (sizeOf(q!.shape) / q!.shape.at(-1)!) * v!.shape.at(-1)!) * k!.shape.at(-2)!,
  ],
  // [N, M] values: M^2 scores an image, and each of M results a sum over M values.
  [ScalarAttention, ({ inputs: [x] }) => 2 * x!.shape[1]! * sizeOf(x!.shape)],
])

/**
 * The multiply-adds of matrix products and convolutions that each of `stages` needs and none before it, in
 * order. Other arithmetic (biases, normalization, activations, pooling) is not counted.
 */
export function multiplyAdds(stages: readonly Tensor[]): number[] {
  const seen = new Set<Node>()
  return stages.map(stage => {
    if (seen.has(stage.node)) return 0
    let sum = 0
    for (const node of topological([stage], ({ inputs }) => inputs.filter(x => !seen.has(x.node)))) {
      sum += products.get(node.op)?.(node) ?? 0
      seen.add(node)
    }
    return sum
  })
}
