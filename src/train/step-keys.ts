/** What training steps are given besides images: first state, minibatches, rates and random numbers. */
import type { TrainProgram } from '../compile/train-program.ts'
import { learningRateAt } from '../nn/schedules.ts'
import { type HostTensor, hostTensor } from '../util/host-tensor.ts'
import { bitsAt, key } from '../util/random.ts'
import type { TrainingSpec } from './spec.ts'

/** A program's inputs `keys/STREAM`, uint32 [steps, 1], for `steps` steps from `from` on, counted from 0. */
export function stepKeys(
  streams: readonly string[],
  seed: number,
  from: number,
  steps: number,
): Record<string, HostTensor> {
  return Object.fromEntries(
    streams.map(name => {
      const stream = key(seed, 'step', name)
      const data = Uint32Array.from({ length: steps }, (_, i) => bitsAt(stream, from + i))
      return [`keys/${name}`, { dtype: 'uint32', shape: [steps, 1], data }]
    }),
  )
}

/** The state that training begins with, by name: of `weights` what they have, the rest drawn from the seed. */
export function startOf(
  { state }: TrainProgram,
  seed: number,
  weights?: Readonly<Record<string, HostTensor>>,
): Record<string, HostTensor> {
  return Object.fromEntries(
    state.map(({ name, shape, initial }): [string, HostTensor] => [
      name,
      weights?.[name] ?? { dtype: 'float32', shape, data: initial(seed) },
    ]),
  )
}

/**
 * A training program's inputs for steps on the images `rows`, minibatch by minibatch, after `updates` steps.
 */
export function stepFeeds(
  { batchSize, randomKeys, scalars }: TrainProgram,
  { optimizer, seed }: Pick<TrainingSpec, 'optimizer' | 'seed'>,
  rows: Int32Array,
  updates: number,
): Record<string, HostTensor> {
  const steps = rows.length / batchSize
  const numbers = Array.from({ length: steps }, (_, i) =>
    scalars(updates + i + 1, learningRateAt(optimizer.learningRate, updates + i)),
  )
  return {
    steps: hostTensor('int64', [], [steps]),
    order: { dtype: 'int32', shape: [steps, batchSize], data: rows },
    scalars: hostTensor('float32', [steps, numbers[0]!.length], numbers.flat()),
    ...stepKeys(randomKeys, seed, updates, steps),
  }
}
