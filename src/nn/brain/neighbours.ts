/** Sums over neighbouring channels. */
import type { Tensor } from '../../graph/node.ts'
import { matMul } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { constant } from '../../graph/ops/source.ts'
import { hostTensor } from '../../util/host-tensor.ts'

/**
 * `factor` times the sum over channels c - before .. c + after of x [..., C]; there is nothing
 * beyond the first and the last.
 */
export function sumOverChannels(x: Tensor, before: number, after: number, factor: number): Tensor {
  const channels = x.shape.at(-1)!
  const band = Array.from({ length: channels * channels }, (_, at) => {
    const offset = Math.floor(at / channels) - (at % channels)
    return -before <= offset && offset <= after ? factor : 0
  })
  const matrix = constant(hostTensor(x.dtype, [channels, channels], band))
  return reshape(matMul(reshape(x, [-1, channels]), matrix), x.shape)
}
