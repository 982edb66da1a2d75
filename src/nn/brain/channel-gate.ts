/**
 * What layers that weigh channels share: a narrow hidden layer between statistics of the
 * channels and their weights.
 */
import type { Tensor } from '../../graph/node.ts'
import { relu } from '../../graph/ops/elementwise.ts'
import { checkInteger } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import type { Scope } from '../layer.ts'
import { checkFlag } from '../options.ts'
import { linear, reducedChannels } from './tokens.ts'

export interface ChannelGateOptions {
  /** r: the hidden layer has C / r units, rounded down, and at least one. Default: 16. */
  readonly reduction?: number
  /** Default: false. */
  readonly useBias?: boolean
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/** Fills in the defaults. */
export function channelGateOptions(where: string, options: ChannelGateOptions) {
  const { reduction = 16, useBias = false } = options
  checkInteger(where, 'reduction', reduction, 1)
  checkFlag(where, 'useBias', useBias)
  const kernelInitializer = toInitializer(options.kernelInitializer ?? 'glorotUniform')
  return { reduction, useBias, kernelInitializer }
}

/**
 * relu(z W_1 + b_1) W_2 + b_2 for rows z [M, C]: [M, C]. W_1 and b_1 are the scope's
 * squeeze, W_2 and b_2 its excite.
 */
export function channelGate(scope: Scope, z: Tensor, layer: ReturnType<typeof channelGateOptions>): Tensor {
  const channels = z.shape[1]!
  const hidden = reducedChannels(channels, layer.reduction)
  const dense = (part: string, x: Tensor, units: number) =>
    linear(scope.part(part), x, { kernel: [x.shape[1]!, units], bias: [units] }, layer)
  return dense('excite', relu(dense('squeeze', z, hidden)), channels)
}
