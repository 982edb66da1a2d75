/**
 * Optimizers: frozen descriptions, and their updates on a graph. The updates are those of Keras 3
 * (keras/src/optimizers), written with as few passes over the weights as they need: where Keras keeps
 * an average `(1 - b) sum b^i g`, the slot holds the sum without its constant factor, which then sits
 * in the scalars of the step.
 */
import type { Tensor } from '../graph/node.ts'
import { add, div, max, mul, relu, sqrt, sub } from '../graph/ops/elementwise.ts'
import { checkRange, unknownName } from '../util/errors.ts'
import { type Clipping, checkClipping, clippingNames } from './clipping.ts'
import { checkFlag, checkFraction, checkPositive, withDefaults } from './options.ts'
import { type Schedule, toLearningRate } from './schedules.ts'

interface Common extends Clipping {
  /** A number of at least 0, or a schedule by step. */
  readonly learningRate: number | Schedule
  /**
   * Each step takes away learningRate * weightDecay of every parameter, beside the gradient, as in Keras. An
   * L2 term in the gradient, as PyTorch's SGD has it, adds up in the momentum: there 5e-4 with a momentum of
   * 0.9 acts as 5e-3 here. Default: none (adamW: 0.004).
   */
  readonly weightDecay?: number
}

interface SgdOptions extends Common {
  readonly momentum: number
  readonly nesterov: boolean
}

interface RmspropOptions extends Common {
  readonly rho: number
  readonly momentum: number
  readonly epsilon: number
  readonly centered: boolean
}

interface NadamOptions extends Common {
  readonly beta1: number
  readonly beta2: number
  readonly epsilon: number
}

interface AdamOptions extends NadamOptions {
  readonly amsgrad: boolean
}

interface AdagradOptions extends Common {
  readonly initialAccumulatorValue: number
  readonly epsilon: number
}

interface OptionsByName {
  readonly sgd: SgdOptions
  readonly rmsprop: RmspropOptions
  readonly adam: AdamOptions
  readonly adamW: AdamOptions
  readonly nadam: NadamOptions
  readonly adagrad: AdagradOptions
}

export type OptimizerName = keyof OptionsByName

/** How parameters follow their gradients: a frozen description. */
export type Optimizer = {
  readonly [N in OptimizerName]: { readonly optimizer: N } & OptionsByName[N]
}[OptimizerName]

/**
 * Gradient descent. `v' = momentum v + learningRate g; w' = w - v'`, with Nesterov
 * `w' = w - momentum v' - learningRate g`. Defaults: learningRate 0.01, momentum 0, nesterov false.
 */
export function sgd(options: Partial<SgdOptions> = {}): Optimizer {
  const full = complete('sgd', { learningRate: 0.01, momentum: 0, nesterov: false }, options)
  checkRange('sgd', 'momentum', full.momentum, 0, 1)
  checkFlag('sgd', 'nesterov', full.nesterov)
  return Object.freeze({ optimizer: 'sgd', ...full })
}

/**
 * `v' = rho v + (1 - rho) g^2; w' = w - learningRate g / sqrt(v' + epsilon)`; centered: v' less the square of
 * the gradients' average. Hinton, lecture notes, 2012. Defaults: learningRate 0.001, rho 0.9, momentum 0,
 * epsilon 1e-7, centered false.
 */
export function rmsprop(options: Partial<RmspropOptions> = {}): Optimizer {
  const defaults = { learningRate: 0.001, rho: 0.9, momentum: 0, epsilon: 1e-7, centered: false }
  const full = complete('rmsprop', defaults, options)
  checkFraction('rmsprop', 'rho', full.rho)
  checkRange('rmsprop', 'momentum', full.momentum, 0, 1)
  checkPositive('rmsprop', 'epsilon', full.epsilon)
  checkFlag('rmsprop', 'centered', full.centered)
  return Object.freeze({ optimizer: 'rmsprop', ...full })
}

/**
 * `m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) g^2; w' = w - a_t m' / (sqrt(v') + epsilon)` with
 * `a_t = learningRate sqrt(1 - beta2^t) / (1 - beta1^t)`; amsgrad: the largest v' so far. Kingma and Ba, ICLR
 * 2015. Defaults: learningRate 0.001, beta1 0.9, beta2 0.999, epsilon 1e-7, amsgrad false.
 */
export function adam(options: Partial<AdamOptions> = {}): Optimizer {
  const full = complete('adam', adamDefaults, options)
  checkMoments('adam', full)
  checkFlag('adam', 'amsgrad', full.amsgrad)
  return Object.freeze({ optimizer: 'adam', ...full })
}

/** {@link adam} with a weight decay of 0.004 by default. Loshchilov and Hutter, ICLR 2019. */
export function adamW(options: Partial<AdamOptions> = {}): Optimizer {
  const full = complete('adamW', { ...adamDefaults, weightDecay: 0.004 }, options)
  checkMoments('adamW', full)
  checkFlag('adamW', 'amsgrad', full.amsgrad)
  return Object.freeze({ optimizer: 'adamW', ...full })
}

/**
 * Adam with Nesterov's momentum and the momentum schedule `beta1 (1 - 0.96^t / 2)`. Dozat, ICLR workshop
 * 2016. Defaults: learningRate 0.001, beta1 0.9, beta2 0.999, epsilon 1e-7.
 */
export function nadam(options: Partial<NadamOptions> = {}): Optimizer {
  const defaults = { learningRate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-7 }
  const full = complete('nadam', defaults, options)
  checkMoments('nadam', full)
  return Object.freeze({ optimizer: 'nadam', ...full })
}

/**
 * `a' = a + g^2; w' = w - learningRate g / sqrt(a' + epsilon)`. Duchi, Hazan and Singer, JMLR 2011.
 * Defaults: learningRate 0.001, initialAccumulatorValue 0.1, epsilon 1e-7.
 */
export function adagrad(options: Partial<AdagradOptions> = {}): Optimizer {
  const defaults = { learningRate: 0.001, initialAccumulatorValue: 0.1, epsilon: 1e-7 }
  const full = complete('adagrad', defaults, options)
  checkRange('adagrad', 'initialAccumulatorValue', full.initialAccumulatorValue, 0)
  checkPositive('adagrad', 'epsilon', full.epsilon)
  return Object.freeze({ optimizer: 'adagrad', ...full })
}

const factories = { sgd, rmsprop, adam, adamW, nadam, adagrad }

const adamDefaults = { learningRate: 0.001, beta1: 0.9, beta2: 0.999, epsilon: 1e-7, amsgrad: false }

/** The given options over the defaults, those that all optimizers share checked. */
function complete<D extends Common, G extends Partial<Common>>(where: string, defaults: D, given: G) {
  const full = withDefaults(where, defaults, given, ['weightDecay', ...clippingNames])
  if (full.weightDecay !== undefined) checkRange(where, 'weightDecay', full.weightDecay, 0)
  checkClipping(where, full)
  return { ...full, learningRate: toLearningRate(where, full.learningRate) }
}

function checkMoments(where: string, options: NadamOptions): void {
  checkFraction(where, 'beta1', options.beta1)
  checkFraction(where, 'beta2', options.beta2)
  checkPositive(where, 'epsilon', options.epsilon)
}

/** An optimizer's update of one parameter, and what it needs. */
export interface OptimizerRule {
  /** Names of the state that each parameter has: tensors of its shape, zeros at first. */
  readonly slots: readonly string[]
  readonly scalarNames: readonly string[]
  /** Numbers that change by step, computed in float64 on the host; `step` counts from 1. */
  scalars(step: number, learningRate: number): Record<string, number>
  /** The parameter and its slots after a step; `scalars` are of shape [] and of the parameter's dtype. */
  update(
    parameter: Tensor,
    gradient: Tensor,
    slots: Tensors,
    scalars: Tensors,
  ): { readonly parameter: Tensor; readonly slots: Record<string, Tensor> }
}

type Tensors = Readonly<Record<string, Tensor>>

/** A rule before weight decay: `change` is what the step takes away from the parameter. */
interface Rule {
  readonly slots: readonly string[]
  scalars(step: number, learningRate: number): Record<string, number>
  change(
    gradient: Tensor,
    slots: Tensors,
    scalars: Tensors,
  ): { readonly change: Tensor; readonly slots: Record<string, Tensor> }
}

// v' = mu v + lr g, change v', Nesterov's mu v' + lr g
function sgdRule({ momentum, nesterov }: SgdOptions): Rule {
  return {
    slots: momentum === 0 ? [] : ['momentum'],
    scalars: (_step, learningRate) => ({ learningRate }),
    change(gradient, slots, { learningRate }) {
      const descent = mul(gradient, learningRate!)
      if (momentum === 0) return { change: descent, slots: {} }
      const velocity = add(mul(slots.momentum!, momentum), descent)
      const change = nesterov ? add(mul(velocity, momentum), descent) : velocity
      return { change, slots: { momentum: velocity } }
    },
  }
}

// With V = v / (1 - rho) and A = a / (1 - rho): V' = rho V + g^2, A' = rho A + g,
// lr g / sqrt(v' - a'^2 + eps) = lr / sqrt(1 - rho) g / sqrt(V' - (1 - rho) A'^2 + eps / (1 - rho))
function rmspropRule({ rho, momentum, epsilon, centered }: RmspropOptions): Rule {
  const scale = 1 - rho
  return {
    slots: ['velocity', ...(momentum === 0 ? [] : ['momentum']), ...(centered ? ['averageGradient'] : [])],
    scalars: (_step, learningRate) => ({ rate: learningRate / Math.sqrt(scale) }),
    change(gradient, slots, { rate }) {
      const velocity = add(mul(slots.velocity!, rho), mul(gradient, gradient))
      const next: Record<string, Tensor> = { velocity }
      let variance = velocity
      if (centered) {
        const average = add(mul(slots.averageGradient!, rho), gradient)
        next.averageGradient = average
        // A variance is never negative, but rounding can make this difference so, and its root NaN.
        variance = relu(sub(velocity, mul(mul(average, average), scale)))
      }
      const descent = div(mul(gradient, rate!), sqrt(add(variance, epsilon / scale)))
      if (momentum === 0) return { change: descent, slots: next }
      const change = add(mul(slots.momentum!, momentum), descent)
      return { change, slots: { ...next, momentum: change } }
    },
  }
}

// With M = m / (1 - b1) and V = v / (1 - b2): M' = b1 M + g, V' = b2 V + g^2,
// a_t m' / (sqrt(v') + eps) = r_t M' / (sqrt(V') + eps / sqrt(1 - b2)), r_t = a_t (1 - b1) / sqrt(1 - b2)
function adamRule({ beta1, beta2, epsilon, amsgrad }: AdamOptions): Rule {
  const root = Math.sqrt(1 - beta2)
  return {
    slots: ['momentum', 'velocity', ...(amsgrad ? ['velocityHat'] : [])],
    scalars(step, learningRate) {
      const correction = Math.sqrt(1 - beta2 ** step) / (1 - beta1 ** step)
      return { rate: (learningRate * correction * (1 - beta1)) / root }
    },
    change(gradient, slots, { rate }) {
      const momentum = add(mul(slots.momentum!, beta1), gradient)
      const velocity = add(mul(slots.velocity!, beta2), mul(gradient, gradient))
      const velocityHat = amsgrad ? max(slots.velocityHat!, velocity) : velocity
      const change = div(mul(momentum, rate!), add(sqrt(velocityHat), epsilon / root))
      return { change, slots: amsgrad ? { momentum, velocity, velocityHat } : { momentum, velocity } }
    },
  }
}

// u_t = b1 (1 - 0.96^t / 2), U_t = u_1 ... u_t; m, v, M, V as in Adam.
// lr (u_t+1 m' / (1 - U_t+1) + (1 - u_t) g / (1 - U_t)) / (sqrt(v' / (1 - b2^t)) + eps); the root's constant
// sqrt((1 - b2) / (1 - b2^t)) is divided out of numerator and denominator.
function nadamRule({ beta1, beta2, epsilon }: NadamOptions): Rule {
  const u = (step: number) => beta1 * (1 - 0.5 * 0.96 ** step)
  return {
    slots: ['momentum', 'velocity'],
    scalars(step, learningRate) {
      const product = beta1 ** step * nesterovProduct(step)
      const root = Math.sqrt((1 - beta2 ** step) / (1 - beta2))
      return {
        momentumRate: (learningRate * u(step + 1) * (1 - beta1) * root) / (1 - product * u(step + 1)),
        gradientRate: (learningRate * (1 - u(step)) * root) / (1 - product),
        epsilon: epsilon * root,
      }
    },
    change(gradient, slots, scalars) {
      const momentum = add(mul(slots.momentum!, beta1), gradient)
      const velocity = add(mul(slots.velocity!, beta2), mul(gradient, gradient))
      const ahead = add(mul(momentum, scalars.momentumRate!), mul(gradient, scalars.gradientRate!))
      return { change: div(ahead, add(sqrt(velocity), scalars.epsilon!)), slots: { momentum, velocity } }
    },
  }
}

/**
 * The product of `1 - 0.96^i / 2` over i = 1 .. step; the factors after the first thousand are 1 in float64.
 */
function nesterovProduct(step: number): number {
  let product = 1
  for (let i = 1; i <= Math.min(step, 1000); i++) product *= 1 - 0.5 * 0.96 ** i
  return product
}

// With A = a - a_0, so that the slot starts at 0: A' = A + g^2, lr g / sqrt(A' + (a_0 + eps))
function adagradRule({ initialAccumulatorValue, epsilon }: AdagradOptions): Rule {
  return {
    slots: ['accumulator'],
    scalars: (_step, learningRate) => ({ learningRate }),
    change(gradient, slots, { learningRate }) {
      const accumulator = add(slots.accumulator!, mul(gradient, gradient))
      const root = sqrt(add(accumulator, initialAccumulatorValue + epsilon))
      return { change: div(mul(gradient, learningRate!), root), slots: { accumulator } }
    },
  }
}

const names: readonly OptimizerName[] = ['sgd', 'rmsprop', 'adam', 'adamW', 'nadam', 'adagrad']

function ruleOf(description: Optimizer): Rule {
  switch (description.optimizer) {
    case 'sgd':
      return sgdRule(description)
    case 'rmsprop':
      return rmspropRule(description)
    case 'adam':
    case 'adamW':
      return adamRule(description)
    case 'nadam':
      return nadamRule(description)
    case 'adagrad':
      return adagradRule(description)
    default:
      throw unknownName('optimizer', String((description as Optimizer).optimizer), names)
  }
}

/**
 * The update that a description stands for. The bounds on gradients are not in it (`clipGradients` in
 * clipping.ts takes the description): they look at all parameters together.
 * @throws UsageError where the optimizer is unknown, or an option out of range
 */
export function optimizerRule(description: Optimizer): OptimizerRule {
  const rule = ruleOf(description)
  // A description may come from a file, past the checks of the function that makes one.
  const { optimizer, ...options } = description
  factories[optimizer](options)
  const { weightDecay } = description
  const scalars = (step: number, learningRate: number): Record<string, number> => ({
    ...rule.scalars(step, learningRate),
    ...(weightDecay === undefined ? {} : { decay: weightDecay * learningRate }),
  })
  return {
    slots: rule.slots,
    scalarNames: Object.keys(scalars(1, 0)),
    scalars,
    update(parameter, gradient, slots, given) {
      const { change, slots: next } = rule.change(gradient, slots, given)
      // Added to the change: a factor 1 - decay would be rounded to float32's spacing at 1,
      // and a small decay with it.
      const total = weightDecay === undefined ? change : add(mul(parameter, given.decay!), change)
      return { parameter: sub(parameter, total), slots: next }
    },
  }
}
