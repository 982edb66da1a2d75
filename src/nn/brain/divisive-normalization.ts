/** Divisive normalization: a unit's response relative to the activity of a pool of units. */
import type { Tensor } from '../../graph/node.ts'
import { abs, add, div, mul, pow, reciprocal, relu, sqrt } from '../../graph/ops/elementwise.ts'
import { matMul } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { constant } from '../../graph/ops/source.ts'
import { checkInteger, checkRange, UsageError } from '../../util/errors.ts'
import { hostTensor } from '../../util/host-tensor.ts'
import { describe, type LayerDefinition, layerError, only } from '../layer.ts'
import { checkFlag, checkPositive } from '../options.ts'
import { gaussianTaps, lowPass } from './gaussian.ts'
import { sumOverChannels } from './neighbours.ts'

export interface DivisiveNormalizationOptions {
  readonly name?: string
  /**
   * The pool: neighbouring channels at the same position (default), or neighbouring
   * positions of the same channel.
   */
  readonly over?: 'channels' | 'space'
  /** Reach of the pool to each side. Default: all channels; 2 in space. */
  readonly radius?: number
  /** n, at least 1. Default: 2. */
  readonly exponent?: number
  /** The pool's activity at which a response saturates by half. Default: 1. */
  readonly sigma?: number
  /** The greatest response. Default: 1. */
  readonly gamma?: number
  /** s, the weight of the pool. Default: 1. */
  readonly strength?: number
  /** Learn one strength for each channel, from `strength` on. Default: false. */
  readonly learned?: boolean
}

/**
 * r_i = gamma a_i^n / (sigma^n + s_c sum_j w_ij a_j^n) with a = relu(x): negative values give 0. Any shape to
 * the same shape. The pool holds the unit itself, and its weights w sum to 1: equal ones over 2 radius + 1
 * channels (or all C), of which those beyond the first and the last are missing; or in space a Gaussian of
 * width radius / 2 over -radius..radius, zeros outside the map. Parameter strength [C] where it is learned,
 * of which the magnitude acts: the denominator stays positive.
 *
 * Heeger, Visual Neuroscience 1992, whose exponent is the default; pool and weights vary over the literature,
 * and those here are a choice.
 *
 * @throws UsageError where an option is out of range
 */
export function divisiveNormalization(options: DivisiveNormalizationOptions = {}) {
  const {
    name,
    over = 'channels',
    exponent = 2,
    sigma = 1,
    gamma = 1,
    strength = 1,
    learned = false,
  } = options
  if (over !== 'channels' && over !== 'space')
    throw new UsageError(`divisiveNormalization: over must be "channels" or "space", received "${over}"`)
  const radius = options.radius ?? (over === 'space' ? 2 : undefined)
  if (radius !== undefined) checkInteger('divisiveNormalization', 'radius', radius, 1)
  checkRange('divisiveNormalization', 'exponent', exponent, 1)
  checkPositive('divisiveNormalization', 'sigma', sigma)
  checkPositive('divisiveNormalization', 'gamma', gamma)
  checkRange('divisiveNormalization', 'strength', strength, 0)
  checkFlag('divisiveNormalization', 'learned', learned)
  const layer = 'divisiveNormalization'
  return describe({ layer, name, over, radius, exponent, sigma, gamma, strength, learned })
}

export const divisiveNormalizationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof divisiveNormalization>, inputs, scope) {
    const x = only(layer, inputs, scope)
    const { over, radius, exponent, sigma, gamma } = layer
    if (over === 'space' && x.shape.length !== 4)
      throw layerError(
        layer,
        scope,
        `over "space" expects feature maps [N, H, W, C], received vectors [N, F]`,
      )
    const driven = pow(relu(x), exponent)
    const pool = (factor: number): Tensor => {
      if (over === 'space') return lowPass(driven, gaussianTaps(radius!, radius! / 2), factor)
      const reach = radius ?? x.shape.at(-1)!
      return sumOverChannels(driven, reach, reach, factor / (radius ? 2 * radius + 1 : reach))
    }
    const channels = x.shape.at(-1)!
    const pooled = layer.learned
      ? mul(
          pool(1),
          abs(
            scope.parameter('strength', [channels], {
              initializer: { initializer: 'constant', value: layer.strength },
            }),
          ),
        )
      : pool(layer.strength)
    return div(mul(driven, gamma), add(pooled, sigma ** exponent))
  },
}

export interface GeneralizedDivisiveNormalizationOptions {
  readonly name?: string
  /** beta at the start. Default: 1. */
  readonly beta?: number
  /** gamma at the start is this times the identity. Default: 0.1. */
  readonly gamma?: number
}

/** beta stays above this. */
const LEAST_BETA = 1e-6

/** The root of gamma's other values at the start: at 0 a square's gradient would be 0 for good. */
const LEAST_ROOT = 2 ** -18

/**
 * GDN: y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) over the channels j of each position. Any shape to the
 * same shape. beta and gamma stay positive as squares: beta = betaRoot^2 + 1e-6, gamma = gammaRoot^2, where
 * gammaRoot is what it starts from (sqrt(gamma) on the diagonal, 2^-18 elsewhere) plus the parameter
 * gammaRootChange [C, C], which starts at zero; parameter betaRoot [C]. Always learned.
 *
 * Balle, Laparra and Simoncelli 2016, arXiv 1511.06281, and its defaults; squares are also how its authors
 * keep the two positive, with a bound in place of 2^-18.
 *
 * @throws UsageError where an option is out of range
 */
export function generalizedDivisiveNormalization(options: GeneralizedDivisiveNormalizationOptions = {}) {
  const { name, beta = 1, gamma = 0.1 } = options
  checkRange('generalizedDivisiveNormalization', 'beta', beta, LEAST_BETA)
  checkRange('generalizedDivisiveNormalization', 'gamma', gamma, 0)
  return describe({ layer: 'generalizedDivisiveNormalization', name, beta, gamma })
}

export const generalizedDivisiveNormalizationDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof generalizedDivisiveNormalization>, inputs, scope) {
    const x = only(layer, inputs, scope)
    const c = x.shape.at(-1)!
    const betaRoot = scope.parameter('betaRoot', [c], {
      initializer: { initializer: 'constant', value: Math.sqrt(layer.beta - LEAST_BETA) },
    })
    const start = Array.from({ length: c * c }, (_, at) =>
      at % (c + 1) === 0 ? Math.max(Math.sqrt(layer.gamma), LEAST_ROOT) : LEAST_ROOT,
    )
    const change = scope.parameter('gammaRootChange', [c, c], { initializer: 'zeros' })
    const gammaRoot = add(change, constant(hostTensor(x.dtype, [c, c], start)))
    const rows = reshape(x, [-1, c])
    const pooled = matMul(mul(rows, rows), mul(gammaRoot, gammaRoot), { transB: true })
    const norm = sqrt(add(pooled, add(mul(betaRoot, betaRoot), LEAST_BETA)))
    return reshape(mul(rows, reciprocal(norm)), x.shape)
  },
}
