/** Runs training programs for a test. */
import type { TrainProgram } from '../src/compile/train-program.ts'
import type { Engine } from '../src/runtime/engine.ts'
import type { Tensors } from '../src/runtime/protocol.ts'
import { type HostTensor, hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { key, randomBits } from '../src/util/random.ts'

export interface Data {
  readonly images: HostTensor
  readonly labels: HostTensor
}

export interface State {
  readonly [name: string]: HostTensor
}

export const initialState = (program: TrainProgram, seed = 1): State =>
  Object.fromEntries(
    program.state.map(({ name, shape, initial }) => [
      name,
      { dtype: 'float32', shape, data: initial(seed) } as HostTensor,
    ]),
  )

/**
 * The feeds of the steps `from` .. `from + count - 1`: batches in the order of the data, keys by step and
 * stream.
 */
export function feedsOf(
  program: TrainProgram,
  from: number,
  count: number,
  learningRate: number,
  rows: number,
) {
  const { batchSize, randomKeys } = program
  const steps = Array.from({ length: count }, (_, i) => from + i)
  const scalars = steps.map(step => program.scalars(step + 1, learningRate))
  const order = steps.flatMap(step =>
    Array.from({ length: batchSize }, (_, i) => (step * batchSize + i) % rows),
  )
  return {
    steps: hostTensor('int64', [], [count]),
    order: hostTensor('int32', [count, batchSize], order),
    scalars: hostTensor('float32', [count, scalars[0]!.length], scalars.flat()),
    ...Object.fromEntries(
      randomKeys.map(name => [
        `keys/${name}`,
        hostTensor(
          'uint32',
          [count, 1],
          steps.map(step => randomBits(key(9, name, step), 1)[0]!),
        ),
      ]),
    ),
  }
}

/** The state that a run leaves, by the names under which the next one takes it. */
export const stateAfter = ({ keep }: TrainProgram, outputs: Tensors): Tensors =>
  Object.fromEntries(Object.entries(keep).map(([output, name]) => [name, outputs[output]!]))

export interface Trained {
  readonly loss: readonly number[]
  readonly correct: readonly number[]
  readonly finite: number
  readonly state: State
}

/** Trains in calls of the given numbers of steps, one batch after the other. */
export async function train(
  engine: Engine,
  program: TrainProgram,
  data: Data,
  learningRate: number,
  calls: readonly number[],
  state: State = initialState(program),
): Promise<Trained> {
  const loaded = await engine.load(program.bytes)
  await engine.write({ ...state, ...data })
  const loss: number[] = []
  const correct: number[] = []
  let finite = 0
  let step = 0
  for (const count of calls) {
    const feeds = feedsOf(program, step, count, learningRate, data.labels.shape[0]!)
    const results = await loaded.run({ feeds, keep: program.keep })
    loss.push(...toNumbers(results.loss!))
    correct.push(...toNumbers(results.correct!))
    finite = toNumbers(results.finite!)[0]!
    step += count
  }
  const after = await engine.read(Object.keys(state))
  await loaded.release()
  return { loss, correct, finite, state: after }
}

/** Seeded noise as images, with seeded labels. */
export function noise(rows: number, size: readonly [number, number, number], classes: number): Data {
  const pixels = randomBits(key(3, 'pixels'), rows * sizeOf(size)).map(bits => bits >>> 24)
  const labels = randomBits(key(3, 'labels'), rows).map(bits => bits % classes)
  return {
    images: hostTensor('uint8', [rows, ...size], pixels),
    labels: hostTensor('int32', [rows], labels),
  }
}
