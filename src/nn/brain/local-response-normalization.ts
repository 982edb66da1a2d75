/** Local response normalization, across channels. */
import { add, exp, log, mul } from '../../graph/ops/elementwise.ts'
import { checkInteger, checkRange, UsageError } from '../../util/errors.ts'
import { describe, type LayerDefinition, only } from '../layer.ts'
import { checkPositive } from '../options.ts'
import { sumOverChannels } from './neighbours.ts'

export interface LocalResponseNormalizationOptions {
  readonly name?: string
  /** n: channels in a neighbourhood. Default: 5. */
  readonly size?: number
  /** Default: 2. */
  readonly k?: number
  /** Default: 1e-4. */
  readonly alpha?: number
  /** Default: 0.75. */
  readonly beta?: number
  /**
   * `'none'` (default): alpha as the paper has it, and TensorFlow. `'size'`: alpha / n, as PyTorch and ONNX
   * have it, in whose units the paper's alpha is 5e-4.
   */
  readonly alphaDividedBy?: 'none' | 'size'
}

/**
 * y_c = x_c / (k + alpha sum over c' of x_c'^2)^beta, c' = c - floor(n / 2) .. c + floor((n - 1) / 2) within
 * the channels, at each position by itself. Any shape to the same shape. Krizhevsky, Sutskever and Hinton
 * 2012, section 3.3, and its defaults.
 *
 * @throws UsageError where an option is out of range
 */
export function localResponseNormalization(options: LocalResponseNormalizationOptions = {}) {
  const { name, size = 5, k = 2, alpha = 1e-4, beta = 0.75, alphaDividedBy = 'none' } = options
  const where = 'localResponseNormalization'
  checkInteger(where, 'size', size, 1)
  checkPositive(where, 'k', k)
  checkRange(where, 'alpha', alpha, 0)
  checkRange(where, 'beta', beta, 0)
  if (alphaDividedBy !== 'none' && alphaDividedBy !== 'size')
    throw new UsageError(`${where}: alphaDividedBy must be "none" or "size", received "${alphaDividedBy}"`)
  return describe({ layer: where, name, size, k, alpha, beta, alphaDividedBy })
}

export const localResponseNormalizationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof localResponseNormalization>, inputs, scope) {
    const x = only(layer, inputs, scope)
    const { size } = layer
    const alpha = layer.alphaDividedBy === 'size' ? layer.alpha / size : layer.alpha
    const pooled = sumOverChannels(mul(x, x), Math.floor(size / 2), Math.floor((size - 1) / 2), alpha)
    // e^(-beta ln) in place of a power: vectorized, where ONNX Runtime's Pow is not.
    return mul(x, exp(mul(log(add(pooled, layer.k)), -layer.beta)))
  },
}
