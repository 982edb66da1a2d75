/**
 * Fovea as a peer of the bench: the programs and the calls that `fit` and `Evaluator` make, by the protocol
 * of bench/README.md.
 *
 *   node bench/peers/fovea.ts        then one request a line
 */
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { compileTraining, type TrainProgram } from '../../src/compile/train-program.ts'
import { minibatchOrder } from '../../src/data/split.ts'
import { parameterCount } from '../../src/nn/build.ts'
import { crossEntropy } from '../../src/nn/losses.ts'
import { adam } from '../../src/nn/optimizers.ts'
import type { Engine, Program } from '../../src/runtime/engine.ts'
import { openEngine } from '../../src/runtime/node.ts'
import { Evaluator } from '../../src/train/evaluate.ts'
import { STORED_TRAIN } from '../../src/train/fit.ts'
import { loadWithState, stepFeeds, stepsOfCall } from '../../src/train/steps.ts'
import { foveaVersion } from '../../src/train/version.ts'
import { FoveaError } from '../../src/util/errors.ts'
import { peakBytes } from '../memory.ts'
import type { Job, Request } from '../protocol.ts'

const optimizer = adam()

let engine: Engine | undefined
/** What the engine holds. */
let stored: string | undefined
let trial: Trial | undefined

/** A network under training. */
class Trial {
  readonly parameters: number
  private readonly job: Job
  private readonly engine: Engine
  private readonly compiled: TrainProgram
  private readonly program: Program
  private readonly evaluator: Evaluator
  /** Their numbers. */
  private readonly images: Int32Array
  private order: Int32Array
  private epoch = 0
  private at = 0
  private updates = 0
  private msPerStep = 0

  private constructor(job: Job, on: Engine, compiled: TrainProgram, program: Program) {
    this.job = job
    this.engine = on
    this.compiled = compiled
    this.program = program
    this.evaluator = new Evaluator(on, { model: job.model, loss: crossEntropy() })
    this.images = Int32Array.from({ length: job.shape[0] }, (_, i) => i)
    this.order = this.newOrder()
    this.parameters = parameterCount(job.model)
  }

  static async begin(job: Job, on: Engine): Promise<Trial> {
    const compiled = compileTraining({
      model: job.model,
      loss: crossEntropy(),
      optimizer,
      batchSize: job.batch,
    })
    const program = await loadWithState(on, compiled, job.seed)
    return new Trial(job, on, compiled, program)
  }

  /** Milliseconds of so many steps, in calls as long as `fit` makes them. */
  async train(steps: number): Promise<number> {
    const began = performance.now()
    for (let left = steps; left > 0; ) {
      const wanted = stepsOfCall(this.compiled, this.msPerStep / 1000)
      const callBegan = performance.now()
      const made = await this.call(Math.min(left, wanted))
      this.msPerStep = (performance.now() - callBegan) / made
      left -= made
    }
    return performance.now() - began
  }

  async evaluate(batches: number) {
    const { batch, shape } = this.job
    const rows = Int32Array.from({ length: batches * batch }, (_, i) => i % shape[0])
    const began = performance.now()
    const { loss, accuracy } = await this.evaluator.evaluate(STORED_TRAIN, rows)
    return { ms: performance.now() - began, loss, accuracy }
  }

  async end(): Promise<void> {
    await this.program.release()
    await this.evaluator.release()
    await this.engine.free(this.compiled.state.map(({ name }) => name))
  }

  /** One call of the program; no more steps than the epoch has left. */
  private async call(wanted: number): Promise<number> {
    const { batch, seed } = this.job
    if (this.at + batch > this.order.length) {
      this.epoch++
      this.at = 0
      this.order = this.newOrder()
    }
    const steps = Math.min(wanted, Math.floor((this.order.length - this.at) / batch))
    const rows = this.order.slice(this.at, this.at + steps * batch)
    const result = await this.program.run({
      feeds: stepFeeds(this.compiled, { optimizer, seed }, rows, this.updates),
      bind: STORED_TRAIN,
      keep: this.compiled.keep,
    })
    if (!Number.isFinite((result.loss!.data as Float32Array).at(-1)))
      throw new FoveaError(
        `${this.job.model.name}: the loss is not finite after ${this.updates + steps} steps`,
      )
    this.at += steps * batch
    this.updates += steps
    return steps
  }

  private newOrder(): Int32Array {
    return minibatchOrder(this.images, this.job.seed, this.epoch)
  }
}

async function prepare(job: Job) {
  await trial?.end()
  trial = undefined
  engine ??= await openEngine({ threads: job.threads })
  if (stored !== job.images) {
    const [images, labels] = await Promise.all([readFile(job.images), readFile(job.labels)])
    await engine.write({
      [STORED_TRAIN.images]: { dtype: 'uint8', shape: job.shape, data: images },
      [STORED_TRAIN.labels]: { dtype: 'int32', shape: [job.shape[0]], data: Int32Array.from(labels) },
    })
    stored = job.images
  }
  trial = await Trial.begin(job, engine)
  await trial.train(1)
  return {
    peer: 'fovea',
    version: `${foveaVersion}, ${engine.version}`,
    parameters: trial.parameters,
    firstStep: performance.timeOrigin + performance.now(),
  }
}

async function answer(request: Request): Promise<object> {
  if (request.do === 'prepare') return await prepare(request)
  // Its own forms were chosen when the program was compiled.
  if (request.do === 'choose') return { variant: '', tried: {} }
  if (request.do === 'memory') return { peakBytes: await peakBytes(process.pid) }
  if (!trial) throw new FoveaError(`${request.do}: expected "prepare" first`)
  if (request.do === 'train') return { ms: await trial.train(request.steps) }
  return await trial.evaluate(request.batches)
}

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line)).catch((error: Error) => ({ error: error.message }))
  process.stdout.write(`${JSON.stringify(reply)}\n`)
}
await engine?.close()
