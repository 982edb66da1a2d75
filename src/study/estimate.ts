/** How long a plan will take, from a few real steps of each of its networks. */
import type { DataSet } from '../data/data-set.ts'
import type { Engine } from '../runtime/engine.ts'
import { fit, storeTrainingImages } from '../train/fit.ts'
import type { TrainingSpec } from '../train/spec.ts'
import type { PlannedTrial } from './reproduce.ts'

/** Enough for the speed of the later steps to be that of warm caches. */
const STEPS = 32

/** Images that a trial trains on in an epoch, and those that validate it. */
export function splitSizes({ split }: TrainingSpec, dataSet: DataSet): { train: number; validation: number } {
  const { fraction = 1, validation = 0.1 } = split
  const { count } = dataSet.train
  const held = validation < 1 ? Math.round(validation * count) : validation
  return { train: Math.round(fraction * (count - held)), validation: held }
}

/** Images that a trial trains on in all its epochs. */
export function trainedImages(spec: TrainingSpec, dataSet: DataSet): number {
  return splitSizes(spec, dataSet).train * spec.epochs
}

/**
 * Estimated seconds of training of a plan, with `workers` trials at a time that do not slow each other down:
 * validation, test and that slowing come on top. Measures on an engine like those that will train.
 */
export async function estimateSeconds(
  trials: readonly PlannedTrial[],
  dataSet: DataSet,
  engine: Engine,
  workers: number,
): Promise<number> {
  await storeTrainingImages(engine, dataSet)
  const rates = new Map<string, number>()
  let seconds = 0
  for (const { arm, spec } of trials) {
    const rate = rates.get(arm.architecture) ?? (await imagesPerSecond(spec, dataSet, engine))
    rates.set(arm.architecture, rate)
    seconds += trainedImages(spec, dataSet) / rate
  }
  return seconds / Math.min(workers, trials.length)
}

async function imagesPerSecond(spec: TrainingSpec, dataSet: DataSet, engine: Engine): Promise<number> {
  const fraction = Math.min(1, (STEPS * spec.batchSize) / dataSet.train.count)
  const { earlyStopping: _, ...rest } = spec
  const calls: { images: number; seconds: number }[] = []
  await fit({ ...rest, epochs: 1, split: { fraction, validation: 0 } }, dataSet, {
    engine,
    onEvent(event) {
      if (event.type !== 'progress') return
      const images = event.step * spec.batchSize
      calls.push({ images, seconds: images / event.imagesPerSecond })
    },
  })
  const [first, last] = [calls[0]!, calls.at(-1)!]
  if (first === last) return first.images / first.seconds
  return (last.images - first.images) / (last.seconds - first.seconds)
}
