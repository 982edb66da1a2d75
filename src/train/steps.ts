/**
 * What training steps are given besides images: first state, minibatches, rates and random numbers; and how
 * many a call makes.
 */
import type { TrainProgram } from '../compile/train-program.ts'
import { learningRateAt } from '../nn/schedules.ts'
import type { Engine, Program } from '../runtime/engine.ts'
import { type HostTensor, hostTensor, sizeOf } from '../util/host-tensor.ts'
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

/** First values that wait for the engine, at most: beyond that, drawing waits too. */
const MOST_BYTES_AHEAD = 128 * 2 ** 20

/**
 * Loads a training program and writes the state that training begins with: of `known`, by name, what is there; the
 * rest drawn from the seed, while the engine prepares the program.
 */
export async function loadWithState(
  engine: Engine,
  compiled: TrainProgram,
  seed: number,
  known: Readonly<Record<string, HostTensor>> = {},
): Promise<Program> {
  const loading = handled(engine.load(compiled.bytes))
  // Before drawing keeps this thread from sending it.
  await engine.sent()
  const [loaded, written] = await Promise.allSettled([loading, writeState(engine, compiled, seed, known)])
  if (loaded.status === 'rejected') throw loaded.reason
  if (written.status === 'fulfilled') return loaded.value
  // An engine that is gone has nothing to release.
  await loaded.value.release().catch(() => {})
  throw written.reason
}

/** For what is awaited later: if it fails before, that is not the end of the process. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

async function writeState(
  engine: Engine,
  { state }: TrainProgram,
  seed: number,
  known: Readonly<Record<string, HostTensor>>,
): Promise<void> {
  let ahead: Promise<void>[] = []
  let bytes = 0
  for (const { name, kind, shape, initial } of state) {
    const tensor = known[name] ?? { dtype: 'float32', shape, data: initial(seed) }
    ahead.push(handled(engine.write({ [name]: tensor })))
    // Of an optimizer's zeros there is nothing until they are written to.
    if (kind !== 'slot') bytes += tensor.data.byteLength
    if (bytes < MOST_BYTES_AHEAD) continue
    await Promise.all(ahead)
    ahead = []
    bytes = 0
  }
  await Promise.all(ahead)
}

/** Progress stays alive. */
const LEAST_CALL_SECONDS = 0.25

/** A call copies the state in and out, which takes 1 / 20 of this time; less where steps run one by one. */
const STATE_BYTES_PER_SECOND = 100e6

/** As long as nothing is known of a step's time. */
const STEPS_OF_FIRST_CALL = 8

/**
 * How many steps a call of a training program should make.
 *
 * @param secondsPerStep of the call before; 0 where there is none
 */
export function stepsOfCall({ state }: TrainProgram, secondsPerStep: number): number {
  if (secondsPerStep === 0) return STEPS_OF_FIRST_CALL
  const bytes = state.reduce((sum, { shape }) => sum + 4 * sizeOf(shape), 0)
  const seconds = Math.max(LEAST_CALL_SECONDS, bytes / STATE_BYTES_PER_SECOND)
  return Math.max(1, Math.round(seconds / secondsPerStep))
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
