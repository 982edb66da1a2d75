/** One file of scripts/check-keras-weights.py: read, matched, and its logits compared with Keras's. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { input } from '../src/graph/ops/source.ts'
import { buildModel } from '../src/nn/build.ts'
import { matchWeights, readWeights } from '../src/weights/index.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { evaluate } from '../test/evaluate.ts'

interface Request {
  readonly model: string
  readonly file: string
  readonly side: number
  readonly folder: string
}

const { model: name, file, side, folder }: Request = JSON.parse(process.argv[2]!)
const pixels = new Uint8Array(await readFile(join(folder, 'images.bin')))
const expected = new Float32Array(new Uint8Array(await readFile(join(folder, 'logits.bin'))).buffer)
const shape = [2, side, side, 3]

const start = performance.now()
const model = architectureNamed(name).build([side, side, 3], 1000, { preprocessing: 'imagenet' })
const weights = await readWeights(file)
const { values, report } = matchWeights(model, weights)
const { missing, misshapen, unused } = report
const wrong = [...missing, ...misshapen.map(tensor => tensor.name), ...unused]
if (wrong.length > 0) throw new Error(`missing, of another shape or unused: ${wrong.join(', ')}`)
const seconds = ((performance.now() - start) / 1000).toFixed(1)

const images = { dtype: 'float32', shape, data: Float32Array.from(pixels) } as const
const built = buildModel(model, input('images', 'float32', shape), { training: false })
const [logits] = await evaluate([built.logits], { ...values, images })
const received = logits!.data as Float32Array
const difference = expected.reduce((most, x, i) => Math.max(most, Math.abs(x - received[i]!)), 0)
const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0)
console.log(
  `${file.split('/').at(-1)}: ${report.matched.length} tensors by ${report.by}, read in ${seconds} s; largest difference ${difference.toExponential(2)}, largest logit ${largest.toPrecision(3)}`,
)
if (!(difference <= 1e-4 * Math.max(1, largest))) throw new Error(`${file}: the logits are not Keras's`)
