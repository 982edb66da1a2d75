/** `--schedule` and `--warmup`: how the learning rate goes over the epochs of a trial. */
import type { Command } from 'commander'
import type { Optimizer } from '../nn/optimizers.ts'
import { cosineDecay, peakLearningRate, polynomialDecay, type Schedule } from '../nn/schedules.ts'
import { UsageError } from '../util/errors.ts'
import { number, oneOf } from './options.ts'

const schedules = ['constant', 'linear', 'cosine'] as const

export interface ScheduleFlags {
  readonly schedule: (typeof schedules)[number]
  readonly warmup: number
}

export function addScheduleOptions(command: Command): Command {
  return command
    .option(
      '--schedule <name>',
      `${schedules.join(', ')}: the learning rate falls to 0 over all epochs`,
      oneOf('schedule', schedules),
      'constant',
    )
    .option('--warmup <epochs>', 'the learning rate first rises from 0 for so long', number('--warmup', 0), 0)
}

/** An optimizer whose learning rate follows the flags, over `epochs` of `stepsPerEpoch`. */
export function scheduled(
  optimizer: Optimizer,
  { schedule, warmup }: ScheduleFlags,
  epochs: number,
  stepsPerEpoch: number,
): Optimizer {
  if (warmup >= epochs)
    throw new UsageError(`--warmup: expected less than the ${epochs} epochs, received ${warmup}`)
  if (schedule === 'constant') {
    if (warmup > 0)
      throw new UsageError('--warmup: expected --schedule cosine beside it, received --schedule constant')
    return optimizer
  }
  const rate = peakLearningRate(optimizer.learningRate)
  const warmupSteps = Math.round(warmup * stepsPerEpoch)
  const decaySteps = epochs * stepsPerEpoch - warmupSteps
  return Object.freeze({ ...optimizer, learningRate: falling(schedule, rate, decaySteps, warmupSteps) })
}

function falling(
  schedule: 'linear' | 'cosine',
  rate: number,
  decaySteps: number,
  warmupSteps: number,
): Schedule {
  if (schedule === 'cosine')
    return warmupSteps > 0
      ? cosineDecay({ initialLearningRate: 0, warmupTarget: rate, warmupSteps, decaySteps })
      : cosineDecay({ initialLearningRate: rate, decaySteps })
  if (warmupSteps > 0)
    throw new UsageError('--warmup: expected --schedule cosine beside it, received --schedule linear')
  return polynomialDecay({ initialLearningRate: rate, endLearningRate: 0, decaySteps })
}
