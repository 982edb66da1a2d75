/**
 * Writes test/golden/program-costs.json anew: what a training step of each network costs in nodes, multiply-adds and
 * bytes. Prints what has changed:
 *
 *     node scripts/program-costs.ts
 */
import { readFile, writeFile } from 'node:fs/promises'
import { pathToFileURL } from 'node:url'
import { compileTraining } from '../src/compile/train-program.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adam } from '../src/nn/optimizers.ts'
import { type StepCost, stepCost } from '../src/onnx/cost.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { type Architecture, CIFAR_10 } from '../src/zoo/architecture.ts'
import { architectures } from '../src/zoo/index.ts'

const TABLE = new URL('../test/golden/program-costs.json', import.meta.url)

type Costs = Readonly<Record<string, StepCost>>

/** A step of 32 images with Adam. Networks for ImageNet's images are built for CIFAR-10's. */
export function costOf({ name, native, build, pretrained }: Architecture): StepCost {
  const { input, classes } = native.input[0] > 64 ? CIFAR_10 : native
  // VGG-16's own head is made for 224 x 224 pixels.
  const top = name === 'vgg16' && pretrained ? ({ top: 'pooling' } as const) : {}
  const model = build(input, classes, top)
  const { bytes } = compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize: 32 })
  return stepCost(decodeModel(bytes))
}

export async function committedCosts(): Promise<Costs> {
  return JSON.parse(await readFile(TABLE, 'utf8'))
}

/** A line for each figure of a network that is another now: `vgg16 nodes: 807 -> 912 (+13.0 %)`. */
export function changes(name: string, before: StepCost | undefined, after: StepCost | undefined): string[] {
  if (!before || !after)
    return [`${name}: ${before ? 'is in the table, but no network' : 'is not in the table'}`]
  const figures = (['nodes', 'multiplyAdds', 'bytes'] as const).map(
    figure => [figure, before[figure], after[figure]] as const,
  )
  const ops = [...new Set([...Object.keys(before.ops), ...Object.keys(after.ops)])].map(
    op => [op, before.ops[op] ?? 0, after.ops[op] ?? 0] as const,
  )
  return [...figures, ...ops]
    .filter(([, from, to]) => from !== to)
    .map(([figure, from, to]) => {
      const percent = from === 0 ? '' : ` (${to > from ? '+' : ''}${((to / from - 1) * 100).toFixed(1)} %)`
      return `${name} ${figure}: ${from.toLocaleString('en-US')} -> ${to.toLocaleString('en-US')}${percent}`
    })
}

async function update(): Promise<void> {
  const before = await committedCosts().catch((): Costs => ({}))
  const after: Costs = Object.fromEntries(architectures.map(network => [network.name, costOf(network)]))
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])]
  const lines = names.flatMap(name => changes(name, before[name], after[name]))
  // A network a line, so that a diff names the networks.
  const rows = Object.entries(after).map(
    ([name, cost]) => `  ${JSON.stringify(name)}: ${JSON.stringify(cost)}`,
  )
  await writeFile(TABLE, `{\n${rows.join(',\n')}\n}\n`)
  console.log(lines.length > 0 ? lines.join('\n') : 'nothing has changed')
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await update()
