/** `fovea models`: what can be trained. */
import type { Command } from 'commander'
import { describeDataSets } from '../data/registry.ts'
import { input } from '../graph/ops/source.ts'
import { buildModel, type Model, parameterCount } from '../nn/model.ts'
import { architectureNamed, architectures, paperNamed } from '../zoo/index.ts'
import type { Architecture } from '../zoo/paper.ts'
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
    .description('list the models; with a name, its layers, what was assumed, and its paper')
    .argument('[name]', "a model's name")
  addCommonOptions(command)
    .addHelpText('after', EXAMPLES)
    .action((name: string | undefined, { json }: { readonly json?: boolean }) => {
      const lines = name === undefined ? listing(json) : summary(architectureNamed(name), json)
      process.stdout.write(`${lines.join('\n')}\n`)
    })
}

/** The model as it is for the data set of its paper. */
function paperModel(architecture: Architecture): Model {
  const { dataSet } = paperNamed(architecture.paper).scales.paper
  const { imageShape, classCount } = describeDataSets().find(({ name }) => name === dataSet)!
  return architecture.build(imageShape, classCount)
}

function listing(json = false): string[] {
  const models = architectures.map(architecture => {
    const { name, title, paper } = architecture
    const model = paperModel(architecture)
    return { name, title, parameters: parameterCount(model), input: model.input, paper }
  })
  if (json) return [JSON.stringify(models, undefined, 2)]
  const { bold, dim } = colorsOf(process.stdout)
  return table(
    [
      { title: 'name', style: bold },
      { title: 'title', optional: true },
      { title: 'parameters', align: 'right' },
      { title: 'input' },
      { title: 'paper' },
    ],
    models.map(({ name, title, parameters, input, paper }) => [
      name,
      title,
      grouped(parameters),
      extents(input),
      paper,
    ]),
    { width: widthOf(process.stdout), styleTitle: dim },
  )
}

function summary(architecture: Architecture, json = false): string[] {
  const { name, title, assumed } = architecture
  const { citation } = paperNamed(architecture.paper)
  const model = paperModel(architecture)
  const built = buildModel(model, input('images', 'float32', [1, ...model.input]), { training: false })
  const layers = built.summary
  const total = (of: 'parameters' | 'buffers') => layers.reduce((sum, layer) => sum + layer[of], 0)
  const [parameters, buffers] = [total('parameters'), total('buffers')]
  if (json) {
    const document = { name, title, input: model.input, parameters, buffers, layers, assumed, citation }
    return [JSON.stringify(document, undefined, 2)]
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
    `  ${plural(parameters, 'parameter')}${fixed}`,
    '',
    'Assumed, where the paper does not say',
    ...assumed.map(text => wrapped(text, width, '  - ')),
    '',
    'Paper',
    wrapped(citation, width, '  '),
  ]
}
