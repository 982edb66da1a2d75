/**
 * Initial values of parameters, with the distributions of Keras 3 (keras/src/initializers). Every number
 * comes from a key, so a parameter's values depend on nothing but that key and its own shape.
 */
import { checkRange, UsageError, unknownName } from '../util/errors.ts'
import { type Shape, showShape, sizeOf } from '../util/host-tensor.ts'
import { type Key, normal, truncatedNormal as truncatedNormals, uniform } from '../util/random.ts'
import { checkNumber, checkPositive, withDefaults } from './options.ts'

type ScalingName =
  | 'glorotUniform'
  | 'glorotNormal'
  | 'heUniform'
  | 'heNormal'
  | 'lecunUniform'
  | 'lecunNormal'

type Scaling = {
  readonly scale: number
  readonly mode: 'fanIn' | 'fanOut' | 'fanAvg'
  readonly distribution: 'truncatedNormal' | 'untruncatedNormal' | 'uniform'
}
type Gaussian = { readonly mean: number; readonly stddev: number }
type Interval = { readonly minval: number; readonly maxval: number }
type Gain = { readonly gain: number }
type Value = { readonly value: number }

/** How a parameter gets its first values: a frozen description. */
export type Initializer =
  | { readonly initializer: ScalingName | 'zeros' | 'ones' }
  | ({ readonly initializer: 'varianceScaling' } & Scaling)
  | ({ readonly initializer: 'randomNormal' | 'truncatedNormal' } & Gaussian)
  | ({ readonly initializer: 'randomUniform' } & Interval)
  | ({ readonly initializer: 'orthogonal' } & Gain)
  | ({ readonly initializer: 'constant' } & Value)

export type InitializerName = Initializer['initializer']

/** The connections into and out of one unit. */
export interface Fans {
  readonly fanIn: number
  readonly fanOut: number
}

/** The six named forms of {@link varianceScaling}. */
const scalings: Record<ScalingName, Scaling> = {
  glorotUniform: { scale: 1, mode: 'fanAvg', distribution: 'uniform' },
  glorotNormal: { scale: 1, mode: 'fanAvg', distribution: 'truncatedNormal' },
  heUniform: { scale: 2, mode: 'fanIn', distribution: 'uniform' },
  heNormal: { scale: 2, mode: 'fanIn', distribution: 'truncatedNormal' },
  lecunUniform: { scale: 1, mode: 'fanIn', distribution: 'uniform' },
  lecunNormal: { scale: 1, mode: 'fanIn', distribution: 'truncatedNormal' },
}

/** Standard deviation of a unit normal truncated to -2..2. */
const TRUNCATED_STDDEV = 0.87962566103423978

/** Uniform in ± sqrt(6 / (fanIn + fanOut)). Glorot and Bengio, AISTATS 2010. Keras's default for kernels. */
export const glorotUniform = (): Initializer => named('glorotUniform')
/** Truncated normal of variance 2 / (fanIn + fanOut). Glorot and Bengio, AISTATS 2010. */
export const glorotNormal = (): Initializer => named('glorotNormal')
/** Uniform in ± sqrt(6 / fanIn). He, Zhang, Ren and Sun, ICCV 2015. */
export const heUniform = (): Initializer => named('heUniform')
/** Truncated normal of variance 2 / fanIn. He, Zhang, Ren and Sun, ICCV 2015. */
export const heNormal = (): Initializer => named('heNormal')
/** Uniform in ± sqrt(3 / fanIn). LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998. */
export const lecunUniform = (): Initializer => named('lecunUniform')
/** Truncated normal of variance 1 / fanIn. Klambauer et al., NeurIPS 2017. */
export const lecunNormal = (): Initializer => named('lecunNormal')
/** All 0. */
export const zeros = (): Initializer => named('zeros')
/** All 1. */
export const ones = (): Initializer => named('ones')

/**
 * Values of variance `scale / fan`.
 * @param options.scale above 0; default 1
 * @param options.mode the fan: `'fanIn'` (default), `'fanOut'` or their mean, `'fanAvg'`
 * @param options.distribution default `'truncatedNormal'`: a normal cut at two deviations, of that variance
 *   after the cut
 */
export function varianceScaling(options: Partial<Scaling> = {}): Initializer {
  const defaults: Scaling = { scale: 1, mode: 'fanIn', distribution: 'truncatedNormal' }
  const full = withDefaults('varianceScaling', defaults, options)
  checkPositive('varianceScaling', 'scale', full.scale)
  const modes = ['fanIn', 'fanOut', 'fanAvg']
  if (!modes.includes(full.mode)) throw unknownName('mode of varianceScaling', full.mode, modes)
  const distributions = ['truncatedNormal', 'untruncatedNormal', 'uniform']
  if (!distributions.includes(full.distribution))
    throw unknownName('distribution of varianceScaling', full.distribution, distributions)
  return Object.freeze({ initializer: 'varianceScaling', ...full })
}

/** Normal values. Defaults: mean 0, stddev 0.05. */
export const randomNormal = (options: Partial<Gaussian> = {}): Initializer =>
  gaussian('randomNormal', options)

/**
 * Normal values drawn again beyond two deviations; `stddev` is that before the cut.
 * Defaults: mean 0, stddev 0.05.
 */
export const truncatedNormal = (options: Partial<Gaussian> = {}): Initializer =>
  gaussian('truncatedNormal', options)

/** Uniform values in [minval, maxval). Defaults: -0.05 and 0.05. */
export function randomUniform(options: Partial<Interval> = {}): Initializer {
  const full = withDefaults('randomUniform', { minval: -0.05, maxval: 0.05 }, options)
  checkNumber('randomUniform', 'minval', full.minval)
  checkNumber('randomUniform', 'maxval', full.maxval)
  if (full.minval > full.maxval)
    throw new UsageError(
      `randomUniform: minval must not exceed maxval, received minval ${full.minval} and maxval ${full.maxval}`,
    )
  return Object.freeze({ initializer: 'randomUniform', ...full })
}

/**
 * `gain` times a random orthogonal matrix [all other axes, last axis]: its columns are orthonormal, or its
 * rows where there are fewer of these. Default gain: 1. Saxe, McClelland and Ganguli, ICLR 2014.
 */
export function orthogonal(options: Partial<Gain> = {}): Initializer {
  const full = withDefaults('orthogonal', { gain: 1 }, options)
  checkNumber('orthogonal', 'gain', full.gain)
  return Object.freeze({ initializer: 'orthogonal', ...full })
}

/** All of one value. Default: 0. */
export function constant(options: Partial<Value> = {}): Initializer {
  const full = withDefaults('constant', { value: 0 }, options)
  checkNumber('constant', 'value', full.value)
  return Object.freeze({ initializer: 'constant', ...full })
}

function named(initializer: ScalingName | 'zeros' | 'ones', options: object = {}): Initializer {
  withDefaults(initializer, {}, options)
  return Object.freeze({ initializer })
}

function gaussian(initializer: 'randomNormal' | 'truncatedNormal', options: Partial<Gaussian>): Initializer {
  const full = withDefaults(initializer, { mean: 0, stddev: 0.05 }, options)
  checkNumber(initializer, 'mean', full.mean)
  checkRange(initializer, 'stddev', full.stddev, 0)
  return Object.freeze({ initializer, ...full })
}

const initializers: Record<InitializerName, (options: object) => Initializer> = {
  glorotUniform: options => named('glorotUniform', options),
  glorotNormal: options => named('glorotNormal', options),
  heUniform: options => named('heUniform', options),
  heNormal: options => named('heNormal', options),
  lecunUniform: options => named('lecunUniform', options),
  lecunNormal: options => named('lecunNormal', options),
  varianceScaling,
  randomNormal,
  truncatedNormal,
  randomUniform,
  orthogonal,
  zeros: options => named('zeros', options),
  ones: options => named('ones', options),
  constant,
}

/**
 * A complete, checked description from a name (`'heNormal'`, with its defaults) or a description.
 * @throws UsageError where the name or an option is unknown, or a value is out of range
 */
export function toInitializer(value: Initializer | InitializerName): Initializer {
  const { initializer, ...options } = typeof value === 'string' ? { initializer: value } : value
  if (!Object.hasOwn(initializers, initializer))
    throw unknownName('initializer', String(initializer), Object.keys(initializers))
  return initializers[initializer](options)
}

/**
 * The first values of a parameter of `shape`, row-major. Computed in float64, then rounded.
 *
 * @param key a stream of its own for each parameter: `key(seed, 'init', 'conv1/kernel')`
 * @param fans instead of those that the shape tells (see {@link fansOf}): after masking a sparse layer, or by
 *   groups
 */
export function initialize(initializer: Initializer, shape: Shape, key: Key, fans?: Fans): Float32Array {
  const count = sizeOf(shape)
  switch (initializer.initializer) {
    case 'zeros':
      return new Float32Array(count)
    case 'ones':
      return new Float32Array(count).fill(1)
    case 'constant':
      return new Float32Array(count).fill(initializer.value)
    case 'randomNormal':
      return rounded(normal(key, count), initializer.stddev, initializer.mean)
    case 'truncatedNormal':
      return rounded(truncatedNormals(key, count), initializer.stddev, initializer.mean)
    case 'randomUniform': {
      const { minval, maxval } = initializer
      return rounded(uniform(key, count), maxval - minval, minval)
    }
    case 'orthogonal':
      return orthogonalMatrix(shape, key, initializer.gain)
    case 'varianceScaling':
      return scaled(initializer, fans ?? fansOf(shape), count, key)
    default:
      return scaled(scalings[initializer.initializer], fans ?? fansOf(shape), count, key)
  }
}

/**
 * Keras's fans: a dense kernel [in, out] has (in, out); a convolution's [kH, kW, in, out] has these times kH
 * kW; of a vector [n] both are n, of a scalar 1.
 */
export function fansOf(shape: Shape): Fans {
  if (shape.length < 2) return { fanIn: shape[0] ?? 1, fanOut: shape[0] ?? 1 }
  const receptiveField = sizeOf(shape.slice(0, -2))
  return { fanIn: receptiveField * shape.at(-2)!, fanOut: receptiveField * shape.at(-1)! }
}

function scaled({ scale, mode, distribution }: Scaling, fans: Fans, count: number, key: Key): Float32Array {
  const { fanIn, fanOut } = fans
  const fan = { fanIn, fanOut, fanAvg: (fanIn + fanOut) / 2 }[mode]
  const stddev = Math.sqrt(scale / Math.max(1, fan))
  if (distribution === 'uniform') {
    const limit = Math.sqrt(3) * stddev
    return symmetric(uniform(key, count), limit)
  }
  if (distribution === 'untruncatedNormal') return rounded(normal(key, count), stddev)
  return rounded(truncatedNormals(key, count), stddev / TRUNCATED_STDDEV)
}

/** `scale z + offset`. Loops, because `Float32Array.from` takes five times as long. */
function rounded(values: Float64Array, scale: number, offset = 0): Float32Array {
  const result = new Float32Array(values.length)
  for (let i = 0; i < values.length; i++) result[i] = scale * values[i]! + offset
  return result
}

/** From [0, 1) to [-limit, limit). */
function symmetric(values: Float64Array, limit: number): Float32Array {
  const result = new Float32Array(values.length)
  for (let i = 0; i < values.length; i++) result[i] = limit * (2 * values[i]! - 1)
  return result
}

/**
 * `gain` Q of the QR decomposition of a tall Gaussian matrix, with the signs for which R's diagonal is
 * positive: Q is then uniform over orthogonal matrices, and it is what Gram and Schmidt's procedure gives.
 */
function orthogonalMatrix(shape: Shape, key: Key, gain: number): Float32Array {
  if (shape.length < 2)
    throw new UsageError(`orthogonal: expected a shape of at least two axes, received ${showShape(shape)}`)
  const columns = shape.at(-1)!
  const rows = sizeOf(shape) / columns
  const length = Math.max(rows, columns)
  const vectors = Math.min(rows, columns)
  const gaussians = normal(key, length * vectors)
  const basis: Float64Array[] = []
  for (let i = 0; i < vectors; i++) {
    const q = gaussians.subarray(i * length, (i + 1) * length)
    // Modified Gram-Schmidt; in float64 a Gaussian matrix stays orthogonal far below float32's rounding.
    for (const earlier of basis) {
      const along = dot(q, earlier)
      for (let j = 0; j < length; j++) q[j]! -= along * earlier[j]!
    }
    const norm = Math.sqrt(dot(q, q))
    for (let j = 0; j < length; j++) q[j]! /= norm
    basis.push(q)
  }
  const values = new Float32Array(rows * columns)
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const value = rows >= columns ? basis[column]![row]! : basis[row]![column]!
      values[row * columns + column] = gain * value
    }
  return values
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}
