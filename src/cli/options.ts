/** The options that several commands share, and how their values are read. */
import { type Command, Option } from 'commander'
import { type ConvMethod, convMethods } from '../graph/ops/window.ts'
import {
  adagrad,
  adam,
  adamW,
  nadam,
  type Optimizer,
  type OptimizerName,
  rmsprop,
  sgd,
} from '../nn/optimizers.ts'
import { type Device, devices } from '../runtime/engine.ts'
import { UsageError, unknownName } from '../util/errors.ts'

const factories = { sgd, rmsprop, adam, adamW, nadam, adagrad } satisfies Record<
  OptimizerName,
  (options?: { learningRate?: number }) => Optimizer
>

/** A whole number of at least `least`. */
export function wholeNumber(flag: string, least: number): (text: string) => number {
  return text => {
    const value = numberOf(text)
    if (Number.isSafeInteger(value) && value >= least) return value
    throw new UsageError(`${flag}: expected a whole number of at least ${least}, received "${text}"`)
  }
}

/** A finite number of at least `least`. */
export function number(flag: string, least: number): (text: string) => number {
  return text => {
    const value = numberOf(text)
    if (Number.isFinite(value) && value >= least) return value
    throw new UsageError(`${flag}: expected a number of at least ${least}, received "${text}"`)
  }
}

/** One of some names. */
export function oneOf<T extends string>(what: string, names: readonly T[]): (text: string) => T {
  return text => {
    const found = names.find(name => name === text)
    if (found !== undefined) return found
    throw unknownName(what, text, names)
  }
}

/** `3`: the seeds 1, 2, 3. `1,2,5`: these seeds. */
export function seedList(text: string): number[] {
  const parts = text.split(',')
  const values = parts.map(numberOf)
  const fail = () =>
    new UsageError(`--seeds: expected a number of seeds or a list as 1,2,5, received "${text}"`)
  if (!values.every(value => Number.isSafeInteger(value) && value >= 0)) throw fail()
  if (values.length > 1) {
    if (new Set(values).size < values.length)
      throw new UsageError(`--seeds: expected each seed once, received "${text}"`)
    return values
  }
  if (values[0]! < 1) throw fail()
  return Array.from({ length: values[0]! }, (_, i) => i + 1)
}

/** The number that a text is, or NaN. */
export function numberOf(text: string): number {
  return /\S/.test(text) && !/\s/.test(text) ? Number(text) : Number.NaN
}

export interface EngineFlags {
  readonly threads?: number
  readonly device?: Device
}

export interface OptimizerFlags {
  readonly optimizer?: OptimizerName
  readonly learningRate?: number
  readonly momentum?: number
  readonly nesterov?: boolean
  readonly weightDecay?: number
}

export function addEngineOptions(command: Command, threads: string): Command {
  return command
    .option('--threads <n>', threads, wholeNumber('--threads', 1))
    .option('--device <name>', `${devices.join(', ')} (default: cpu)`, oneOf('device', devices))
}

export function addOptimizerOptions(command: Command, byDefault: string): Command {
  const names = Object.keys(factories) as OptimizerName[]
  return command
    .option('--optimizer <name>', `${names.join(', ')} (default: ${byDefault})`, oneOf('optimizer', names))
    .option('--learning-rate <x>', "default: the optimizer's own", number('--learning-rate', 0))
    .option('--momentum <x>', 'of sgd and rmsprop (default: 0)', number('--momentum', 0))
    .option('--nesterov', "Nesterov's momentum, of sgd")
    .option(
      '--weight-decay <x>',
      "each step takes away so much of every weight, times the rate; with a momentum of 0.9, ten times PyTorch's number (default: 0)",
      number('--weight-decay', 0),
    )
}

export interface ConvolutionFlag {
  readonly convolution?: ConvMethod
}

export function addConvolutionOption(command: Command): Command {
  return command.option(
    '--convolution <form>',
    `how convolutions are computed where they can be: ${convMethods.join(', ')} (default: as is fastest, layer by layer)`,
    oneOf('form of convolutions', convMethods),
  )
}

export function addSkipOption(command: Command): Command {
  return command.option('--skip-undecodable', 'leave out pictures of a folder that cannot be decoded')
}

export function addCommonOptions(command: Command): Command {
  return command
    .option('--json', 'print one JSON document on stdout instead of text')
    .addOption(new Option('--verbose', 'with an error, print where it came from'))
}

/** The optimizer that the flags name, or `base`, with the options that they give. */
export function optimizerOf(
  { optimizer, learningRate, momentum, nesterov, weightDecay }: OptimizerFlags,
  base: Optimizer,
): Optimizer {
  const all = { learningRate, momentum, nesterov, weightDecay }
  const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
  if (optimizer === undefined && Object.keys(given).length === 0) return base
  const { optimizer: own, ...others } = base
  const make = factories[optimizer ?? own] as (options: object) => Optimizer
  const made = make(optimizer === undefined ? { ...others, ...given } : given)
  // Without momentum it would change nothing.
  if (nesterov && !('momentum' in made && Number(made.momentum) > 0))
    throw new UsageError('--nesterov: expected a --momentum above 0 beside it, received none')
  return made
}

/** Throws where a flag was given that a resumed run takes from its folder. */
export function refuseWithResume(command: Command, allowed: readonly string[]): void {
  for (const option of command.options) {
    const name = option.attributeName()
    if (allowed.includes(name) || command.getOptionValueSource(name) !== 'cli') continue
    const others = command.options.filter(other => allowed.includes(other.attributeName()))
    const unsaid = ['--resume', '--json', '--verbose']
    const flags = others.map(({ long }) => long!).filter(long => !unsaid.includes(long))
    throw new UsageError(
      `${option.long} cannot be given with --resume, which takes it from the folder; only ${flags.join(', ')} may change`,
    )
  }
}
