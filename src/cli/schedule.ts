/** `--schedule` and `--warmup`: how the learning rate goes over the epochs of a trial. */
import type { Command } from 'commander'
import type { Optimizer } from '../nn/optimizers.ts'
import { cosineDecay, peakLearningRate, polynomialDecay } from '../nn/schedules.ts'
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
  if (warmup > 0 && schedule !== 'cosine')
    throw new UsageError(`--warmup: expected --schedule cosine beside it, received --schedule ${schedule}`)
  if (schedule === 'constant') return optimizer
  const rate = peakLearningRate(optimizer.learningRate)
  const warmupSteps = Math.round(warmup * stepsPerEpoch)
  const decaySteps = epochs * stepsPerEpoch - warmupSteps
  const rising = { initialLearningRate: 0, warmupTarget: rate, warmupSteps, decaySteps }
  const falling = { initialLearningRate: rate, decaySteps }
  const learningRate =
    schedule === 'linear'
      ? polynomialDecay({ ...falling, endLearningRate: 0 })
      : cosineDecay(warmupSteps > 0 ? rising : falling)
  return Object.freeze({ ...optimizer, learningRate })
}
