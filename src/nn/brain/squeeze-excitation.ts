/** Squeeze-and-excitation: channels are weighed by what the whole image holds. */
import { mul, sigmoid } from '../../graph/ops/elementwise.ts'
import { reduceMean } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { describe, featureMaps, type LayerDefinition } from '../layer.ts'
import { type ChannelGateOptions, channelGate, channelGateOptions } from './channel-gate.ts'

export interface SqueezeExcitationOptions extends ChannelGateOptions {
  readonly name?: string
}

/**
 * y_c = s_c x_c, s = sigmoid(relu(z W_1 + b_1) W_2 + b_2), z the mean of each channel over the map.
 * [N, H, W, C] to the same shape. Parameters squeeze/kernel [C, C / r], excite/kernel [C / r, C], and with
 * `useBias` squeeze/bias and excite/bias.
 *
 * Hu, Shen and Sun 2018, arXiv 1709.01507, whose equation has no biases and whose reduction is the default.
 *
 * @throws UsageError where an option is out of range
 */
export function squeezeExcitation(options: SqueezeExcitationOptions = {}) {
  const gate = channelGateOptions('squeezeExcitation', options)
  return describe({ layer: 'squeezeExcitation', name: options.name, ...gate })
}

export const squeezeExcitationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof squeezeExcitation>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const means = reshape(reduceMean(x, [0, 1]), x.shape.slice(2)) // [N, C]
    return mul(x, sigmoid(channelGate(scope, means, layer)))
  },
}
