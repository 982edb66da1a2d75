/** Fovea's own throughput: whole training steps through the engine, as `fit` makes them. */
import { compileTraining } from '../src/compile/train-program.ts'
import type { DataSet } from '../src/data/data-set.ts'
import { minibatchOrder } from '../src/data/split.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import type { Model } from '../src/nn/model.ts'
import { adam } from '../src/nn/optimizers.ts'
import { openEngine } from '../src/runtime/node.ts'
import { STORED_TRAIN, storeTrainingImages } from '../src/train/fit.ts'
import { hostTensor } from '../src/util/host-tensor.ts'

export interface Timing {
  readonly threads: number
  readonly batch: number
  /** Milliseconds. */
  readonly msPerStep: { readonly min: number; readonly median: number }
}

export interface TimingOptions {
  readonly threads: number
  readonly batch: number
  /** Steps of one repeat. */
  readonly steps: number
  readonly repeats: number
}

/** Trains a model for `repeats` times `steps` steps with Adam, after a warm-up, and times each repeat. */
export async function timeTraining(model: Model, dataSet: DataSet, options: TimingOptions): Promise<Timing> {
  const { threads, batch, steps, repeats } = options
  const engine = await openEngine({ threads })
  try {
    await storeTrainingImages(engine, dataSet)
    const compiled = compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize: batch })
    const program = await engine.load(compiled.bytes)
    await engine.write(
      Object.fromEntries(
        compiled.state.map(({ name, shape, initial }) => [
          name,
          { dtype: 'float32', shape, data: initial(1) },
        ]),
      ),
    )
    const images = Int32Array.from({ length: dataSet.train.count }, (_, i) => i)
    const order = minibatchOrder(images, 1, 0)
    const times: number[] = []
    for (let repeat = -1; repeat < repeats; repeat++) {
      const first = (repeat + 1) * steps
      const rows = Int32Array.from(
        { length: steps * batch },
        (_, i) => order[(first * batch + i) % order.length]!,
      )
      const scalars = Array.from({ length: steps }, (_, i) => compiled.scalars(first + i + 1, 1e-3))
      const began = performance.now()
      await program.run({
        feeds: {
          steps: hostTensor('int64', [], [steps]),
          order: { dtype: 'int32', shape: [steps, batch], data: rows },
          scalars: hostTensor('float32', [steps, scalars[0]!.length], scalars.flat()),
        },
        bind: STORED_TRAIN,
        keep: compiled.keep,
      })
      if (repeat >= 0) times.push((performance.now() - began) / steps)
    }
    times.sort((a, b) => a - b)
    return { threads, batch, msPerStep: { min: times[0]!, median: times[Math.floor(times.length / 2)]! } }
  } finally {
    await engine.close()
  }
}
