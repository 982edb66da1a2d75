/** Learning-rate schedules, those of Keras 3 (keras/src/optimizers/schedules), in float64 on the host. */
import { checkRange, UsageError, unknownName } from '../util/errors.ts'
import { checkFlag, checkNumber, checkPositive, withDefaults } from './options.ts'

interface Decay {
  /** The rate at step 0. */
  readonly initialLearningRate: number
  /** Steps, above 0. */
  readonly decaySteps: number
}

interface RateDecay extends Decay {
  readonly decayRate: number
  /** True: the rate falls at whole multiples of decaySteps only. Default: false. */
  readonly staircase: boolean
}

interface Piecewise {
  /** Steps, ascending. */
  readonly boundaries: readonly number[]
  /** Rates, one more than boundaries. */
  readonly values: readonly number[]
}

interface PolynomialOptions extends Decay {
  /** Default: 0.0001. */
  readonly endLearningRate: number
  /** Default: 1. */
  readonly power: number
  /** True: after decaySteps the period is stretched to twice, three times that and so on. Default: false. */
  readonly cycle: boolean
}

interface CosineOptions extends Decay {
  /** The last rate as a fraction of the largest. Default: 0. */
  readonly alpha: number
  /** The rate that a linear warm-up ends at. Default: no warm-up. */
  readonly warmupTarget?: number
  /** Steps of the warm-up, which come before decaySteps. Default: 0. */
  readonly warmupSteps: number
}

interface RestartOptions {
  readonly initialLearningRate: number
  /** Steps of the first period, above 0. */
  readonly firstDecaySteps: number
  /** Each period lasts so many times the one before; at least 1. Default: 2. */
  readonly tMul: number
  /** Each period starts at so many times the rate of the one before. Default: 1. */
  readonly mMul: number
  /** The least rate as a fraction of the initial one. Default: 0. */
  readonly alpha: number
}

/** A learning rate by step: a frozen description. */
export type Schedule =
  | ({ readonly schedule: 'exponentialDecay' | 'inverseTimeDecay' } & RateDecay)
  | ({ readonly schedule: 'piecewiseConstantDecay' } & Piecewise)
  | ({ readonly schedule: 'polynomialDecay' } & PolynomialOptions)
  | ({ readonly schedule: 'cosineDecay' } & CosineOptions)
  | ({ readonly schedule: 'cosineDecayRestarts' } & RestartOptions)

export type ScheduleName = Schedule['schedule']

type Given<T, Required extends keyof T> = Pick<T, Required> & Partial<T>

const decayOptions = ['initialLearningRate', 'decaySteps'] as const

/** `initialLearningRate * decayRate^(step / decaySteps)`. */
export function exponentialDecay(options: Given<RateDecay, keyof Decay | 'decayRate'>): Schedule {
  return rateDecay('exponentialDecay', options)
}

/** `initialLearningRate / (1 + decayRate * step / decaySteps)`. */
export function inverseTimeDecay(options: Given<RateDecay, keyof Decay | 'decayRate'>): Schedule {
  return rateDecay('inverseTimeDecay', options)
}

/** `values[i]` up to and including step `boundaries[i]`, the last value after the last boundary. */
export function piecewiseConstantDecay(options: Piecewise): Schedule {
  const where = 'piecewiseConstantDecay'
  const { boundaries, values } = withDefaults(where, {}, options, ['boundaries', 'values'])
  if (!Array.isArray(boundaries) || !Array.isArray(values))
    throw new UsageError(`${where}: boundaries and values must be arrays of numbers`)
  if (boundaries.length !== values.length - 1)
    throw new UsageError(
      `${where}: expected one more value than boundaries, received ${boundaries.length} boundaries and ${values.length} values`,
    )
  for (const boundary of boundaries) checkNumber(where, 'boundaries', boundary)
  for (const value of values) checkRange(where, 'values', value, 0)
  if (boundaries.some((boundary, i) => i > 0 && boundary <= boundaries[i - 1]!))
    throw new UsageError(`${where}: boundaries must ascend, received [${boundaries.join(', ')}]`)
  return Object.freeze({
    schedule: where,
    boundaries: Object.freeze([...boundaries]),
    values: Object.freeze([...values]),
  })
}

/**
 * `(initialLearningRate - endLearningRate) (1 - step / decaySteps)^power + endLearningRate`, then
 * `endLearningRate`.
 */
export function polynomialDecay(options: Given<PolynomialOptions, keyof Decay>): Schedule {
  const where = 'polynomialDecay'
  const defaults = { endLearningRate: 0.0001, power: 1, cycle: false }
  const full = withDefaults(where, defaults, options, decayOptions)
  checkDecay(where, full)
  checkRange(where, 'endLearningRate', full.endLearningRate, 0)
  checkPositive(where, 'power', full.power)
  checkFlag(where, 'cycle', full.cycle)
  return Object.freeze({ schedule: where, ...full })
}

/**
 * Half a cosine from `initialLearningRate` (or from `warmupTarget`, after a linear warm-up to it) down to
 * `alpha` times that. Loshchilov and Hutter, ICLR 2017.
 */
export function cosineDecay(options: Given<CosineOptions, keyof Decay>): Schedule {
  const where = 'cosineDecay'
  const full = withDefaults(where, { alpha: 0, warmupSteps: 0 }, options, [...decayOptions, 'warmupTarget'])
  checkDecay(where, full)
  checkRange(where, 'alpha', full.alpha, 0)
  checkRange(where, 'warmupSteps', full.warmupSteps, 0)
  if (full.warmupTarget !== undefined) checkRange(where, 'warmupTarget', full.warmupTarget, 0)
  else if (full.warmupSteps > 0)
    throw new UsageError(
      `${where}: warmupSteps needs the rate that the warm-up ends at: set warmupTarget, received warmupSteps ${full.warmupSteps} alone`,
    )
  return Object.freeze({ schedule: where, ...full })
}

/**
 * Half cosines one after another, each starting anew (SGDR). At the restarts themselves exact, where Keras's
 * logarithm may round to the period before. Loshchilov and Hutter, ICLR 2017.
 */
export function cosineDecayRestarts(
  options: Given<RestartOptions, 'initialLearningRate' | 'firstDecaySteps'>,
): Schedule {
  const where = 'cosineDecayRestarts'
  const required = ['initialLearningRate', 'firstDecaySteps']
  const full = withDefaults(where, { tMul: 2, mMul: 1, alpha: 0 }, options, required)
  checkRange(where, 'initialLearningRate', full.initialLearningRate, 0)
  checkPositive(where, 'firstDecaySteps', full.firstDecaySteps)
  checkRange(where, 'tMul', full.tMul, 1)
  checkRange(where, 'mMul', full.mMul, 0)
  checkRange(where, 'alpha', full.alpha, 0)
  return Object.freeze({ schedule: where, ...full })
}

function rateDecay(
  schedule: 'exponentialDecay' | 'inverseTimeDecay',
  options: Given<RateDecay, keyof Decay | 'decayRate'>,
): Schedule {
  const full = withDefaults(schedule, { staircase: false }, options, [...decayOptions, 'decayRate'])
  checkDecay(schedule, full)
  checkRange(schedule, 'decayRate', full.decayRate, 0)
  checkFlag(schedule, 'staircase', full.staircase)
  return Object.freeze({ schedule, ...full })
}

function checkDecay(where: string, { initialLearningRate, decaySteps }: Decay): void {
  checkRange(where, 'initialLearningRate', initialLearningRate, 0)
  checkPositive(where, 'decaySteps', decaySteps)
}

// biome-ignore lint/suspicious/noExplicitAny: each factory checks the options of its own kind.
const schedules: Record<ScheduleName, (options: any) => Schedule> = {
  exponentialDecay,
  piecewiseConstantDecay,
  polynomialDecay,
  inverseTimeDecay,
  cosineDecay,
  cosineDecayRestarts,
}

/**
 * A complete, checked learning rate from a number or a description.
 * @param where names the optimizer in an error
 */
export function toLearningRate(where: string, rate: number | Schedule): number | Schedule {
  if (typeof rate !== 'object' || rate === null) {
    checkRange(where, 'learningRate', rate, 0)
    return rate
  }
  const { schedule, ...options } = rate
  if (!Object.hasOwn(schedules, schedule))
    throw unknownName('schedule', String(schedule), Object.keys(schedules))
  return schedules[schedule](options)
}

/** The learning rate of an update. `step` counts the updates done before it: 0 for the first. */
export function learningRateAt(rate: number | Schedule, step: number): number {
  if (typeof rate === 'number') return rate
  switch (rate.schedule) {
    case 'exponentialDecay':
      return rate.initialLearningRate * rate.decayRate ** periods(rate, step)
    case 'inverseTimeDecay':
      return rate.initialLearningRate / (1 + rate.decayRate * periods(rate, step))
    case 'piecewiseConstantDecay': {
      const passed = rate.boundaries.filter(boundary => step > boundary).length
      return rate.values[passed]!
    }
    case 'polynomialDecay':
      return polynomialAt(rate, step)
    case 'cosineDecay':
      return cosineAt(rate, step)
    case 'cosineDecayRestarts':
      return restartsAt(rate, step)
  }
}

/** The rate that a schedule is written with: its largest but for its restarts. A number is its own. */
export function peakLearningRate(rate: number | Schedule): number {
  if (typeof rate === 'number') return rate
  if (rate.schedule === 'piecewiseConstantDecay') return Math.max(...rate.values)
  if (rate.schedule === 'cosineDecay') return rate.warmupTarget ?? rate.initialLearningRate
  return rate.initialLearningRate
}

function periods({ decaySteps, staircase }: RateDecay, step: number): number {
  return staircase ? Math.floor(step / decaySteps) : step / decaySteps
}

function polynomialAt(options: PolynomialOptions, step: number): number {
  const { initialLearningRate: from, endLearningRate: to, decaySteps, power, cycle } = options
  const length = cycle ? decaySteps * Math.max(1, Math.ceil(step / decaySteps)) : decaySteps
  return (from - to) * (1 - Math.min(step, length) / length) ** power + to
}

function cosineAt(options: CosineOptions, step: number): number {
  const { initialLearningRate, decaySteps, alpha, warmupTarget, warmupSteps } = options
  if (step < warmupSteps)
    return initialLearningRate + ((warmupTarget! - initialLearningRate) * step) / warmupSteps
  const fraction = Math.min(step - warmupSteps, decaySteps) / decaySteps
  return (warmupTarget ?? initialLearningRate) * ((1 - alpha) * halfCosine(fraction) + alpha)
}

function restartsAt(options: RestartOptions, step: number): number {
  const { initialLearningRate, firstDecaySteps, tMul, mMul, alpha } = options
  let restarts = 0
  let done = step
  let length = firstDecaySteps
  if (tMul === 1) {
    restarts = Math.floor(step / length)
    done = step - restarts * length
  } else {
    for (; done >= length; restarts++) {
      done -= length
      length *= tMul
    }
  }
  return initialLearningRate * ((1 - alpha) * mMul ** restarts * halfCosine(done / length) + alpha)
}

/** 1 at 0, 0 at 1. */
function halfCosine(fraction: number): number {
  return 0.5 * (1 + Math.cos(Math.PI * fraction))
}
