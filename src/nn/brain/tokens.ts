/** What attention layers share: positions as tokens, and projections. */
import type { Tensor } from '../../graph/node.ts'
import { batchInward, batchOutward } from '../../graph/ops/batch-axis.ts'
import { add } from '../../graph/ops/elementwise.ts'
import { matMul } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { type Shape, sizeOf } from '../../util/host-tensor.ts'
import type { Initializer } from '../initializers.ts'
import type { Scope } from '../layer.ts'

/** Feature maps [H, W, N, C] as tokens [N, H W, C]. */
export function positions(x: Tensor): Tensor {
  return reshape(batchOutward(x), [x.shape[2]!, x.shape[0]! * x.shape[1]!, x.shape[3]!])
}

/** Tokens [N, H W, C'] as feature maps [H, W, N, C'] of the size of `like`. */
export function mapsOf(tokens: Tensor, like: Tensor): Tensor {
  const [h, w, n] = like.shape as unknown as readonly [number, number, number]
  return batchInward(reshape(tokens, [n, h, w, tokens.shape[2]!]))
}

/** The width of a bottleneck: C / reduction, rounded down, and at least one. */
export function reducedChannels(channels: number, reduction: number): number {
  return Math.max(1, Math.floor(channels / reduction))
}

/**
 * x W for a scope's parameter `name`, the matrix W [F, units]: [..., F] to [..., units]. With `transA` the
 * tokens are the columns of x [..., F, T], and the result is [..., T, units].
 */
export function projected(
  { parameter }: Pick<Scope, 'parameter'>,
  name: string,
  x: Tensor,
  units: number,
  { kernelInitializer: initializer }: { readonly kernelInitializer: Initializer },
  { transA = false } = {},
): Tensor {
  return matMul(x, parameter(name, [x.shape.at(transA ? -2 : -1)!, units], { initializer }), { transA })
}

/**
 * x W + b: [..., F] to [..., U], for a scope's parameters kernel, whose extents multiply to F U, and bias,
 * whose extents multiply to U. Without `useBias` there is no b.
 */
export function linear(
  { parameter }: Pick<Scope, 'parameter'>,
  x: Tensor,
  shapes: { readonly kernel: Shape; readonly bias: Shape },
  options: { readonly useBias: boolean; readonly kernelInitializer: Initializer },
): Tensor {
  const units = sizeOf(shapes.bias)
  const kernel = parameter('kernel', shapes.kernel, { initializer: options.kernelInitializer })
  const y = matMul(x, reshape(kernel, [-1, units]))
  if (!options.useBias) return y
  return add(y, reshape(parameter('bias', shapes.bias, { initializer: 'zeros' }), [units]))
}
