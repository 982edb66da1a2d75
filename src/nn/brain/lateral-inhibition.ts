/** Lateral inhibition in space: units of one channel inhibit their neighbours on the map. */
import type { Tensor } from '../../graph/node.ts'
import { add, mul, relu } from '../../graph/ops/elementwise.ts'
import { checkInteger, checkRange, UsageError } from '../../util/errors.ts'
import { describe, featureMaps, type LayerDefinition, type Scope } from '../layer.ts'
import { checkFlag, checkPositive } from '../options.ts'
import { gaussianTaps, lowPass } from './gaussian.ts'

export interface LateralInhibitionOptions {
  readonly name?: string
  /** Reach of the inhibition on each axis, in cells of the map. Default: 2. */
  readonly radius?: number
  /** Width of the Gaussian, in cells. Default: half the radius. */
  readonly sigma?: number
  /**
   * s: 0 changes nothing; at 1 a constant map is suppressed completely, away from the border. Default: 0.1.
   */
  readonly strength?: number
  /** Learn one strength for each channel, from `strength` on. Default: false. */
  readonly learned?: boolean
}

/**
 * Subtractive lateral inhibition: y = x - s_c (G * x), where G[i, j] ~ e^(-(i^2 + j^2) / (2 sigma^2)) over
 * -radius..radius, G[0, 0] = 0 and sum G = 1; zeros outside the map. [N, H, W, C] to the same shape.
 * Parameter strength [C] where it is learned; nothing keeps it positive. A generic form, of no one paper: the
 * subtractive inhibition of Hartline and Ratliff 1957 with Gaussian weights, feed-forward. It is linear: a
 * relu before it or after it is a layer of its own.
 *
 * @throws UsageError where an option is out of range
 */
export function lateralInhibition(options: LateralInhibitionOptions = {}) {
  const { name, radius = 2, strength = 0.1, learned = false } = options
  checkInteger('lateralInhibition', 'radius', radius, 1)
  const sigma = options.sigma ?? radius / 2
  checkPositive('lateralInhibition', 'sigma', sigma)
  checkRange('lateralInhibition', 'strength', strength, 0)
  checkFlag('lateralInhibition', 'learned', learned)
  return describe({ layer: 'lateralInhibition', name, radius, sigma, strength, learned })
}

export const lateralInhibitionDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof lateralInhibition>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const taps = gaussianTaps(layer.radius, layer.sigma)
    // With B the separable Gaussian of sum 1 and b = B[0, 0]:  G * x = (B * x - b x) / (1 - b)
    const b = taps[layer.radius]! ** 2
    const share = 1 / (1 - b)
    if (!layer.learned)
      return add(mul(x, 1 + layer.strength * b * share), lowPass(x, taps, -layer.strength * share))
    const inhibition = add(mul(x, b * share), lowPass(x, taps, -share)) // -G * x
    return add(x, mul(inhibition, learnedStrength(layer, x, scope)))
  },
}

/** One strength for each channel, [C]. */
function learnedStrength(layer: { readonly strength: number }, x: Tensor, scope: Scope): Tensor {
  return scope.parameter('strength', [x.shape[3]!], {
    initializer: { initializer: 'constant', value: layer.strength },
  })
}

export interface DifferenceOfGaussiansOptions {
  readonly name?: string
  /** Width of the excitatory centre, in cells. Default: 1. */
  readonly sigma1?: number
  /** Width of the inhibitory surround, in cells; above sigma1. Default: 2. */
  readonly sigma2?: number
  /** Where both Gaussians are cut, in cells. Default: 3 sigma2, rounded up. */
  readonly radius?: number
  /** lambda. Default: 0.1. */
  readonly strength?: number
  /** Learn one strength for each channel, from `strength` on. Default: false. */
  readonly learned?: boolean
}

/**
 * Centre-surround antagonism: y = relu(x + lambda_c (K * x)), K = G(sigma1) - G(sigma2), each Gaussian scaled
 * to a sum of 1 over -radius..radius in both axes, so that K sums to zero; zeros outside the map.
 * [N, H, W, C] to the same shape. Parameter strength [C] where lambda is learned. The difference of Gaussians
 * is Rodieck's, Vision Research 1965; its use as a layer is generic, of no one paper.
 *
 * @throws UsageError where an option is out of range
 */
export function differenceOfGaussians(options: DifferenceOfGaussiansOptions = {}) {
  const { name, sigma1 = 1, sigma2 = 2, strength = 0.1, learned = false } = options
  checkPositive('differenceOfGaussians', 'sigma1', sigma1)
  if (!Number.isFinite(sigma2) || sigma2 <= sigma1)
    throw new UsageError(`differenceOfGaussians: sigma2 must be above sigma1 ${sigma1}, received ${sigma2}`)
  const radius = options.radius ?? Math.ceil(3 * sigma2)
  checkInteger('differenceOfGaussians', 'radius', radius, 1)
  checkRange('differenceOfGaussians', 'strength', strength, 0)
  checkFlag('differenceOfGaussians', 'learned', learned)
  return describe({ layer: 'differenceOfGaussians', name, sigma1, sigma2, radius, strength, learned })
}

export const differenceOfGaussiansDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof differenceOfGaussians>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const factor = layer.learned ? 1 : layer.strength
    const centre = lowPass(x, gaussianTaps(layer.radius, layer.sigma1), factor)
    const surround = lowPass(x, gaussianTaps(layer.radius, layer.sigma2), -factor)
    const contrast = add(centre, surround)
    return relu(add(x, layer.learned ? mul(contrast, learnedStrength(layer, x, scope)) : contrast))
  },
}
