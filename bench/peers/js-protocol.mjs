/**
 * What the JavaScript peers of the bench share: requests and answers, one JSON object a line, and the
 * minibatches.
 *
 * The peers are .mjs files with JSDoc, not TypeScript: Fovea's own check would else need their libraries.
 */
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { generator } from './js-network.mjs'

/**
 * A network under training, in the words of one library.
 *
 * @typedef {object} Trial
 * @property {number} parameters
 * @property {(images: Float32Array, oneHot: Float32Array) => void | Promise<void>} step one update; the arrays are
 *   its own until the next call only
 * @property {() => Promise<number>} settle waits for the last update; the loss of the last step
 * @property {(images: Float32Array, oneHot: Float32Array) => Promise<{loss: number, logits: Float32Array}>} evaluate
 *   the loss with its L2 terms, and logits [batch, classes]
 * @property {() => void} end frees what it holds
 */

/**
 * Obeys the requests on the standard input until it ends.
 *
 * @param {{peer: string, version: string, begin: (job: object) => Promise<Trial>}} library
 */
export async function serve({ peer, version, begin }) {
  /** @type {{ trial: Trial, data: Minibatches } | undefined} */
  let open
  const opened = () => {
    if (!open) throw new Error('expected a network that is prepared, received none')
    return open
  }

  const train = async steps => {
    const { trial, data } = opened()
    const began = performance.now()
    for (let i = 0; i < steps; i++) {
      data.next()
      await trial.step(data.images, data.oneHot)
    }
    const loss = await trial.settle()
    if (!Number.isFinite(loss)) throw new Error('the loss is not finite')
    return performance.now() - began
  }

  const answers = {
    async prepare(job) {
      open?.trial.end()
      open = undefined
      const data = await Minibatches.read(job)
      open = { trial: await begin(job), data }
      await train(1)
      const firstStep = performance.timeOrigin + performance.now()
      return { peer, version, parameters: open.trial.parameters, firstStep }
    },

    /** Neither library has forms that must be timed: what each does is in its docstring. */
    async choose() {
      return { variant: '', tried: {} }
    },

    async train({ steps }) {
      return { ms: await train(steps) }
    },

    async evaluate({ batches }) {
      const { trial, data } = opened()
      const began = performance.now()
      let loss = 0
      let correct = 0
      for (let i = 0; i < batches; i++) {
        data.inOrder(i)
        const result = await trial.evaluate(data.images, data.oneHot)
        loss += result.loss / batches
        correct += data.correct(result.logits)
      }
      return { ms: performance.now() - began, loss, accuracy: correct / (batches * data.batch) }
    },

    async memory() {
      return { peakBytes: process.resourceUsage().maxRSS * 1024 }
    },
  }

  for await (const line of createInterface({ input: process.stdin })) {
    let answer
    try {
      const { do: what, ...request } = JSON.parse(line)
      if (!Object.hasOwn(answers, what))
        throw new Error(`expected ${Object.keys(answers).join(', ')}, received "${what}"`)
      answer = await answers[what](request)
    } catch (error) {
      const message = error instanceof Error ? error.message : (error?.message ?? String(error))
      answer = { error: `${peer}: ${message.trim().replaceAll(/\s*\n\s*/g, ' ')}` }
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`)
  }
}

/** Images and labels in memory as bytes, and the batch that was taken last, as float32. */
class Minibatches {
  static async read({ images, labels, shape, classes, batch, seed }) {
    const [count, ...sides] = shape
    const size = sides.reduce((a, b) => a * b)
    const files = await Promise.all([readFile(images), readFile(labels)])
    for (const [i, expected] of [count * size, count].entries())
      if (files[i].length !== expected)
        throw new Error(`${[images, labels][i]}: expected ${expected} bytes, received ${files[i].length}`)
    return new Minibatches(files, { count, size, classes, batch, seed })
  }

  constructor([pixels, labels], { count, size, classes, batch, seed }) {
    Object.assign(this, { pixels, labels, count, size, classes, batch })
    this.random = generator(seed)
    this.order = Int32Array.from({ length: count }, (_, i) => i)
    this.at = count
    this.rows = new Int32Array(batch)
    this.images = new Float32Array(batch * size)
    this.oneHot = new Float32Array(batch * classes)
  }

  /** The next rows of a random order; a new order where less than a batch is left. */
  next() {
    const { order, batch, count } = this
    if (this.at + batch > count) {
      for (let i = count - 1; i > 0; i--) {
        const j = Math.floor(this.random() * (i + 1))
        const kept = order[i]
        order[i] = order[j]
        order[j] = kept
      }
      this.at = 0
    }
    this.rows.set(order.subarray(this.at, this.at + batch))
    this.at += batch
    this.gather()
  }

  /** The `i`th batch of the images in order, round and round. */
  inOrder(i) {
    for (let k = 0; k < this.batch; k++) this.rows[k] = (i * this.batch + k) % this.count
    this.gather()
  }

  gather() {
    const { rows, size, pixels, images, labels, oneHot, classes } = this
    oneHot.fill(0)
    for (let k = 0; k < rows.length; k++) {
      const row = rows[k]
      images.set(pixels.subarray(row * size, (row + 1) * size), k * size)
      oneHot[k * classes + labels[row]] = 1
    }
  }

  /** How many of the last batch's labels have the largest logit. */
  correct(logits) {
    const { rows, classes, labels } = this
    let count = 0
    for (let k = 0; k < rows.length; k++) {
      let best = 0
      for (let c = 1; c < classes; c++) if (logits[k * classes + c] > logits[k * classes + best]) best = c
      if (best === labels[rows[k]]) count++
    }
    return count
  }
}
