/** `fovea models`: what can be trained. */
import type { Command } from 'commander'
import { input } from '../graph/ops/source.ts'
import { buildModel, type Model, parameterCount } from '../nn/model.ts'
import type { Architecture } from '../zoo/architecture.ts'
import { architectureNamed, architectures } from '../zoo/index.ts'
import { extents, grouped, plural, wrapped } from './format.ts'
import { addCommonOptions } from './options.ts'
import { table } from './table.ts'
import { colorsOf, widthOf } from './terminal.ts'

const EXAMPLES = `
Examples:
  fovea models
  fovea models singh-brar/lateral-inhibition`

export function addModelsCommand(program: Command): void {
  const command = program
    .command('models')
    .description('list the models; with a name, its layers, what was assumed, and its source')
    .argument('[name]', "a model's name")
  addCommonOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((name: string | undefined, { json }: { readonly json?: boolean }) => {
      const lines = name === undefined ? listing(json) : summary(architectureNamed(name), json)
      process.stdout.write(`${lines.join('\n')}\n`)
    })
}

/** The model as it is for the images that its source trains it on. */
function nativeModel({ native, build }: Architecture): Model {
  return build(native.input, native.classes)
}

function listing(json = false): string[] {
  const models = architectures.map(architecture => {
    const { name, title, source } = architecture
    const model = nativeModel(architecture)
    return { name, title, parameters: parameterCount(model), input: model.input, source: source.id }
  })
  if (json) return [JSON.stringify(models, undefined, 2)]
  const { bold, dim } = colorsOf(process.stdout)
  return table(
    [
      { title: 'name', style: bold },
      { title: 'title', optional: true },
      { title: 'parameters', align: 'right' },
      { title: 'input' },
      { title: 'source' },
    ],
    models.map(({ name, title, parameters, input, source }) => [
      name,
      title,
      grouped(parameters),
      extents(input),
      source,
    ]),
    { width: widthOf(process.stdout), styleTitle: dim },
  )
}

function summary(architecture: Architecture, json = false): string[] {
  const { name, title, stated, assumed, native } = architecture
  const { citation } = architecture.source
  const model = nativeModel(architecture)
  const built = buildModel(model, input('images', 'float32', [1, ...model.input]), { training: false })
  const layers = built.summary
  const total = (of: 'parameters' | 'buffers') => layers.reduce((sum, layer) => sum + layer[of], 0)
  const [parameters, buffers] = [total('parameters'), total('buffers')]
  if (json) {
    const { dataSet, input, classes } = native
    const counted = { name, title, dataSet, input, classes, parameters, buffers }
    return [JSON.stringify({ ...counted, layers, stated, assumed, citation }, undefined, 2)]
  }
  const { bold, dim } = colorsOf(process.stdout)
  const width = Math.min(widthOf(process.stdout), 100)
  const columns = [
    { title: 'layer', style: bold },
    { title: 'kind' },
    { title: 'output', align: 'right' },
    { title: 'parameters', align: 'right' },
    ...(buffers > 0 ? [{ title: 'buffers', align: 'right' } as const] : []),
  ] as const
  const rows = layers.map(layer => [
    layer.name,
    layer.layer.layer,
    extents(layer.output),
    grouped(layer.parameters),
    grouped(layer.buffers),
  ])
  const fixed = buffers > 0 ? `, and ${grouped(buffers)} saved values that are not trained` : ''
  return [
    `${bold(name)}  ${title}`,
    '',
    ...table(columns, [['input', 'images', extents(model.input)], ...rows], { width, styleTitle: dim }),
    '',
    `  ${plural(parameters, 'parameter')}${fixed}, for ${native.dataSet} (${native.classes} classes)`,
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
