/** `fovea models`: what can be trained. */
import type { Command } from 'commander'
import { multiplyAdds } from '../graph/cost.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel } from '../nn/build.ts'
import type { Model } from '../nn/model.ts'
import { UsageError } from '../util/errors.ts'
import type { Architecture } from '../zoo/architecture.ts'
import { architectureNamed, architectures } from '../zoo/index.ts'
import { extents, grouped, metric, plural, wrapped } from './format.ts'
import { addCommonOptions, wholeNumber } from './options.ts'
import { table } from './table.ts'
import { colorsOf, widthOf } from './terminal.ts'

const EXAMPLES = `
Examples:
  fovea models
  fovea models singh-brar/lateral-inhibition
  fovea models resnet50 --input 32x32x3 --classes 10

MACs: multiply-adds of matrix products and convolutions, forward, for one image.`

interface ModelsFlags {
  readonly input?: Images
  readonly classes?: number
  readonly json?: boolean
}

type Images = Model['input']

export function addModelsCommand(program: Command): void {
  const command = program
    .command('models')
    .description('list the models; with a name, its layers, what was assumed, and its source')
    .argument('[name]', "a model's name")
    .option('--input <HxWxC>', "images, as 32x32x3 (default: those of the model's source)", imagesOf)
    .option('--classes <n>', "default: those of the model's source", wholeNumber('--classes', 2))
  addCommonOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((name: string | undefined, flags: ModelsFlags) => {
      if (name === undefined && (flags.input || flags.classes !== undefined))
        throw new UsageError(
          "--input and --classes are for one model: expected a model's name, received none",
        )
      const lines = name === undefined ? listing(flags.json) : summary(architectureNamed(name), flags)
      process.stdout.write(`${lines.join('\n')}\n`)
    })
}

/** `32x32x3` */
function imagesOf(text: string): Images {
  const parts = /^(\d+)x(\d+)x(\d+)$/.exec(text)?.slice(1).map(Number) ?? []
  const [height, width, channels] = parts
  if (height && width && channels && parts.every(Number.isSafeInteger)) return [height, width, channels]
  throw new UsageError(`--input: expected height x width x channels as 32x32x3, received "${text}"`)
}

/** A model's layers and what they cost; the sums of all layers. */
function counted(model: Model) {
  const built = buildModel(model, input('images', 'float32', [1, ...model.input]), { training: false })
  const costs = multiplyAdds(built.summary.map(({ name }) => built.outputs.get(name)!))
  const layers = built.summary.map((layer, i) => ({ ...layer, multiplyAdds: costs[i]! }))
  const total = (of: 'parameters' | 'buffers' | 'multiplyAdds') =>
    layers.reduce((sum, layer) => sum + layer[of], 0)
  const totals = {
    parameters: total('parameters'),
    buffers: total('buffers'),
    multiplyAdds: total('multiplyAdds'),
  }
  return { layers, totals }
}

function listing(json = false): string[] {
  const models = architectures.map(({ name, title, native, build, source }) => {
    const { parameters, multiplyAdds } = counted(build(native.input, native.classes)).totals
    return { name, title, parameters, multiplyAdds, input: native.input, source: source.id }
  })
  if (json) return [JSON.stringify(models, undefined, 2)]
  const { bold, dim } = colorsOf(process.stdout)
  return table(
    [
      { title: 'name', style: bold },
      { title: 'title', optional: true },
      { title: 'parameters', align: 'right' },
      { title: 'MACs', align: 'right' },
      { title: 'input' },
      { title: 'source' },
    ],
    models.map(({ name, title, parameters, multiplyAdds, input, source }) => [
      name,
      title,
      grouped(parameters),
      metric(multiplyAdds),
      input.join('x'),
      source,
    ]),
    { width: widthOf(process.stdout), styleTitle: dim },
  )
}

function summary(architecture: Architecture, flags: ModelsFlags): string[] {
  const { name, title, stated, assumed, native } = architecture
  const { citation } = architecture.source
  const { input = native.input, classes = native.classes } = flags
  const { layers, totals } = counted(architecture.build(input, classes))
  const { parameters, buffers, multiplyAdds } = totals
  const own = flags.input === undefined && flags.classes === undefined
  const images = own ? { dataSet: native.dataSet } : {}
  if (flags.json) {
    const facts = { name, title, ...images, input, classes, ...totals }
    return [JSON.stringify({ ...facts, layers, stated, assumed, citation }, undefined, 2)]
  }
  const { bold, dim } = colorsOf(process.stdout)
  const width = Math.min(widthOf(process.stdout), 100)
  const columns = [
    { title: 'layer', style: bold },
    { title: 'kind' },
    { title: 'output', align: 'right' },
    { title: 'parameters', align: 'right' },
    { title: 'MACs', align: 'right' },
    ...(buffers > 0 ? [{ title: 'buffers', align: 'right', optional: true } as const] : []),
  ] as const
  const rows = layers.map(layer => [
    layer.name,
    layer.layer.layer,
    layer.output.join('x'),
    grouped(layer.parameters),
    metric(layer.multiplyAdds),
    grouped(layer.buffers),
  ])
  const fixed =
    buffers > 0
      ? `, and ${grouped(buffers)} saved values that are not trained: ${grouped(parameters + buffers)} in all`
      : ''
  const data = own ? `${native.dataSet}: ` : ''
  return [
    `${bold(name)}  ${title}`,
    '',
    ...table(columns, [['input', 'images', input.join('x')], ...rows], { width, styleTitle: dim }),
    '',
    `  ${plural(parameters, 'parameter')}${fixed}`,
    `  ${plural(multiplyAdds, 'multiply-add')} for an image, forward`,
    `  for ${data}images of ${extents(input)} in ${classes === 1 ? '1 class' : `${grouped(classes)} classes`}`,
    '',
    'Stated by the source',
    ...stated.map(text => wrapped(text, width, '  - ')),
    '',
    'Assumed or changed',
    ...(assumed.length > 0 ? assumed : ['nothing']).map(text => wrapped(text, width, '  - ')),
    '',
    'Source',
    wrapped(citation, width, '  '),
  ]
}
