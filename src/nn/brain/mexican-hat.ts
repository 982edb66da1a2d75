/** Lateral connections between channels, with the profile of a Mexican hat. */
import type { Tensor } from '../../graph/node.ts'
import { add, exp, mul, reciprocal, sqrt, sub } from '../../graph/ops/elementwise.ts'
import { matMul } from '../../graph/ops/reduce.ts'
import { reshape } from '../../graph/ops/shape.ts'
import { constant } from '../../graph/ops/source.ts'
import { checkRange, UsageError } from '../../util/errors.ts'
import { hostTensor, type Shape } from '../../util/host-tensor.ts'
import { describe, type LayerDefinition, layerError, only, type Scope } from '../layer.ts'
import { checkFlag, checkPositive } from '../options.ts'

export interface MexicanHatOptions {
  readonly name?: string
  /** Distance between channels at which excitation turns into inhibition. Default: 3. */
  readonly width?: number
  /** The damping that scales the wavelet. Default: 0.12. */
  readonly strength?: number
  /**
   * `'one-shot'`: the lateral input is added once. `'equilibrium'` (default): until nothing changes any more.
   */
  readonly mode?: 'one-shot' | 'equilibrium'
  /** Learn width and strength, from these values on. Default: false. */
  readonly learned?: boolean
}

/**
 * Semantic lateral connectivity. Channels stand on a ring; with d the distance on it and a = strength,
 *
 *     w(d) = a 2 / (sqrt(3 width) pi^(1/4)) (1 - d^2 / width^2) e^(-d^2 / (2 width^2)),  w(0) = 0
 *     T[i, j] = w(d(i, j))
 *     one-shot:     y = x + x T
 *     equilibrium:  y = x (I - T)^-1, to which y <- x + y T converges
 *
 * at each position by itself. Any shape to the same shape; at least 3 channels. T is circulant, so that one
 * Fourier basis diagonalizes it for all widths and strengths: the equilibrium is exact where they are
 * learned, too. Parameters width and strength [1], where they are learned; nothing keeps a learned T's
 * eigenvalues below 1, beyond which there is no equilibrium.
 *
 * Weidler et al. 2021, arXiv 2105.09830. Assumed: the wavelet's factor and the default strength, which
 * are those of published code for that paper; the channel opposite on an even ring has no connection, as
 * there; the default width.
 *
 * @throws UsageError where an option is out of range
 */
export function mexicanHat(options: MexicanHatOptions = {}) {
  const { name, width = 3, strength = 0.12, mode = 'equilibrium', learned = false } = options
  checkPositive('mexicanHat', 'width', width)
  checkRange('mexicanHat', 'strength', strength, 0)
  checkFlag('mexicanHat', 'learned', learned)
  if (mode !== 'one-shot' && mode !== 'equilibrium')
    throw new UsageError(`mexicanHat: mode must be "one-shot" or "equilibrium", received "${mode}"`)
  return describe({ layer: 'mexicanHat', name, width, strength, mode, learned })
}

/** The wavelet's factor at width 1. */
const WAVELET_FACTOR = 2 / (Math.sqrt(3) * Math.PI ** 0.25)

type MexicanHat = ReturnType<typeof mexicanHat>

export const mexicanHatDefinition: LayerDefinition = {
  build(layer: MexicanHat, inputs, scope) {
    const x = only(layer, inputs, scope)
    const channels = x.shape.at(-1)!
    if (channels < 3)
      throw layerError(layer, scope, `expected at least 3 channels on the ring, received ${channels}`)
    const matrix = layer.learned ? learnedMatrix(layer, x, scope) : fixedMatrix(layer, x, scope)
    return reshape(matMul(reshape(x, [-1, channels]), matrix), x.shape)
  },
}

/** 2 pi j k / count. The product modulo the count keeps it small and exact. */
function angle(j: number, k: number, count: number): number {
  return (2 * Math.PI * ((j * k) % count)) / count
}

/** I + T or (I - T)^-1, computed on the host in float64. */
function fixedMatrix(layer: MexicanHat, x: Tensor, scope: Scope): Tensor {
  const count = x.shape.at(-1)!
  const ring = Array.from({ length: count }, (_, i) => i)
  const row = ring.map(i => layer.strength * unitWavelet(ringDistance(i, count), layer.width))
  // The eigenvalues of a symmetric circulant matrix from its first row, and the row from them: one transform.
  const sum = (values: readonly number[], k: number) =>
    values.reduce((total, value, j) => total + value * Math.cos(angle(j, k, count)), 0)
  let first = row.map((w, i) => (i === 0 ? 1 + w : w))
  if (layer.mode === 'equilibrium') {
    const eigenvalues = ring.map(k => sum(row, k))
    const radius = Math.max(...eigenvalues.map(Math.abs))
    if (radius >= 1)
      throw layerError(
        layer,
        scope,
        `no equilibrium: the lateral input grows by a factor of ${radius.toFixed(3)} a step and must shrink; lower strength ${layer.strength} or width ${layer.width}`,
      )
    const inverse = eigenvalues.map(value => 1 / (1 - value))
    first = ring.map(i => sum(inverse, i) / count)
  }
  return table(x, [count, count], (i, j) => first[(j - i + count) % count]!)
}

/** The same matrix as a function of the parameters width and strength. */
function learnedMatrix(layer: MexicanHat, x: Tensor, scope: Scope): Tensor {
  const count = x.shape.at(-1)!
  const scalarParameter = (name: 'width' | 'strength') =>
    scope.parameter(name, [1], { initializer: { initializer: 'constant', value: layer[name] } })
  const width = scalarParameter('width')
  const strength = scalarParameter('strength')
  const squares = table(x, [1, count], (_, j) => ringDistance(j, count) ** 2)
  const connected = table(x, [1, count], (_, j) => Number(ringDistance(j, count) > 0))
  const inverseSquare = reciprocal(mul(width, width))
  const scaled = mul(squares, inverseSquare) // d^2 / width^2
  const factor = mul(mul(strength, reciprocal(sqrt(width))), WAVELET_FACTOR)
  const row = mul(mul(connected, factor), mul(sub(1, scaled), exp(mul(scaled, -0.5)))) // [1, C]
  const cosines = table(x, [count, count], (j, k) => Math.cos(angle(j, k, count)))
  const eigenvalues = matMul(row, cosines)
  const response = layer.mode === 'equilibrium' ? reciprocal(sub(1, eigenvalues)) : add(eigenvalues, 1)
  // The Hartley basis, real and orthogonal: cos + sin.
  const basis = table(x, [count, count], (j, k) => {
    const at = angle(j, k, count)
    return (Math.cos(at) + Math.sin(at)) / Math.sqrt(count)
  })
  return matMul(mul(basis, response), basis)
}

/** w(d) at strength 1; 0 at d = 0. */
function unitWavelet(distance: number, width: number): number {
  if (distance === 0) return 0
  const scaled = (distance / width) ** 2
  return (WAVELET_FACTOR / Math.sqrt(width)) * (1 - scaled) * Math.exp(-scaled / 2)
}

/**
 * The distance on a ring to its first channel; 0 for the opposite one of an even ring,
 * which has no connection.
 */
function ringDistance(index: number, count: number): number {
  return 2 * index === count ? 0 : Math.min(index, count - index)
}

function table(x: Tensor, shape: readonly [number, number], value: (i: number, j: number) => number): Tensor {
  const values = Array.from({ length: shape[0] * shape[1] }, (_, at) =>
    value(Math.floor(at / shape[1]), at % shape[1]),
  )
  return constant(hostTensor(x.dtype, shape as Shape, values))
}
