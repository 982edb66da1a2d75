/** Squeeze-and-excitation: channels are weighed by what the whole image holds. */
import type { Tensor } from '../../graph/node.ts'
import { add, mul, relu, sigmoid } from '../../graph/ops/elementwise.ts'
import { matMul, reduceMean } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { checkInteger } from '../../util/errors.ts'
import { type Initializer, type InitializerName, toInitializer } from '../initializers.ts'
import { describe, featureMaps, type LayerDefinition } from '../layer.ts'
import { checkFlag } from '../options.ts'

export interface SqueezeExcitationOptions {
  readonly name?: string
  /** r: the hidden layer has C / r units, rounded down, and at least one. Default: 16. */
  readonly reduction?: number
  /** Default: false. */
  readonly useBias?: boolean
  /** Default: `'glorotUniform'`. */
  readonly kernelInitializer?: Initializer | InitializerName
}

/**
 * y_c = s_c x_c,  s = sigmoid(relu(z W_1 + b_1) W_2 + b_2),  z the mean of each channel over the map. [N, H, W, C] to the same shape.
 * Parameters squeeze/kernel [C, C / r], excite/kernel [C / r, C], and with `useBias` squeeze/bias and excite/bias.
 *
 * Hu, Shen and Sun 2018, arXiv 1709.01507, whose equation has no biases and whose reduction is the default.
 *
 * @throws UsageError where an option is out of range
 */
export function squeezeExcitation(options: SqueezeExcitationOptions = {}) {
  const { name, reduction = 16, useBias = false } = options
  checkInteger('squeezeExcitation', 'reduction', reduction, 1)
  checkFlag('squeezeExcitation', 'useBias', useBias)
  const kernelInitializer = toInitializer(options.kernelInitializer ?? 'glorotUniform')
  return describe({ layer: 'squeezeExcitation', name, reduction, useBias, kernelInitializer })
}

export const squeezeExcitationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof squeezeExcitation>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const channels = x.shape[3]!
    const hidden = Math.max(1, Math.floor(channels / layer.reduction))
    const dense = (part: string, from: Tensor, units: number) => {
      const { parameter } = scope.part(part)
      const kernel = parameter('kernel', [from.shape[1]!, units], { initializer: layer.kernelInitializer })
      const y = matMul(from, kernel)
      return layer.useBias ? add(y, parameter('bias', [units], { initializer: 'zeros' })) : y
    }
    const means = reshape(reduceMean(x, [0, 1]), x.shape.slice(2)) // [N, C]
    return mul(x, sigmoid(dense('excite', relu(dense('squeeze', means, hidden)), channels)))
  },
}
