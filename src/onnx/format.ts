/**
 * A model as text for people and for snapshot tests: one node a line, graphs within a node indented below it.
 */
import { type HostTensor, showShape } from '../util/host-tensor.ts'
import type { Attribute, OnnxGraph, OnnxModel, OnnxNode, ValueInfo } from './model.ts'

/** Tensors of more values show only the first ones. */
const MOST_VALUES = 8

/**
 * ```text
 * ir 9, opset 18, producer fovea
 * graph step(x: float32[N, 4]) -> (y: float32[N, 2])
 *   w = float32[4, 2] {0.5, 0.25, ...}
 *   y = MatMul(x, w)
 * ```
 */
export function formatModel(model: OnnxModel): string {
  const opsets = model.opsets.map(({ domain, version }) => `opset ${domain ? `${domain} ` : ''}${version}`)
  const lines = [[`ir ${model.irVersion}`, ...opsets, `producer ${model.producer}`].join(', ')]
  for (const [key, value] of Object.entries(model.metadata ?? {}))
    lines.push(`${key}: ${JSON.stringify(value)}`)
  lines.push(...graphLines(model.graph, 'graph', ''))
  return lines.join('\n')
}

function graphLines(graph: OnnxGraph, label: string, indent: string): string[] {
  const inner = `${indent}  `
  const signature = `${graph.name}(${values(graph.inputs)}) -> (${values(graph.outputs)})`
  return [
    `${indent}${label} ${signature}`,
    ...graph.initializers.map(({ name, tensor }) => `${inner}${name} = ${showTensor(tensor)}`),
    ...graph.nodes.flatMap(node => nodeLines(node, inner)),
  ]
}

function nodeLines(node: OnnxNode, indent: string): string[] {
  const outputs = node.outputs.map(nameOrGap).join(', ')
  const inputs = node.inputs.map(nameOrGap).join(', ')
  const attributes = Object.entries(node.attributes)
  const plain = attributes.flatMap(([name, value]) =>
    'graph' in value ? [] : [`${name}=${showAttribute(value)}`],
  )
  const op = node.domain ? `${node.domain}.${node.op}` : node.op
  const line = `${indent}${outputs} = ${op}(${inputs})${plain.length > 0 ? ` {${plain.join(', ')}}` : ''}`
  const graphs = attributes.flatMap(([name, value]) =>
    'graph' in value ? graphLines(value.graph, `${name}:`, `${indent}  `) : [],
  )
  return [line, ...graphs]
}

function values(infos: readonly ValueInfo[]): string {
  return infos
    .map(({ name, dtype, shape }) => `${name}: ${dtype}${shape ? showExtents(shape) : ''}`)
    .join(', ')
}

/** An extent without a value and without a name is unknown. */
function showExtents(shape: readonly (number | string)[]): string {
  return showShape(shape.map(extent => (extent === '' ? '?' : extent)))
}

function nameOrGap(name: string): string {
  return name === '' ? '_' : name
}

function showAttribute(attribute: Exclude<Attribute, { readonly graph: OnnxGraph }>): string {
  if ('int' in attribute) return String(attribute.int)
  if ('float' in attribute) return showNumber(attribute.float)
  if ('string' in attribute) return JSON.stringify(attribute.string)
  if ('ints' in attribute) return `[${attribute.ints.join(', ')}]`
  if ('floats' in attribute) return `[${attribute.floats.map(showNumber).join(', ')}]`
  if ('strings' in attribute) return `[${attribute.strings.map(text => JSON.stringify(text)).join(', ')}]`
  return showTensor(attribute.tensor)
}

function showTensor({ dtype, shape, data }: HostTensor): string {
  const first: string[] = []
  for (const value of data.subarray(0, MOST_VALUES)) first.push(showNumber(value))
  if (data.length > MOST_VALUES) first.push('...')
  return `${dtype}${showShape(shape)} {${first.join(', ')}}`
}

/** Six digits: enough to read, and free of the noise of float32 shown as float64. */
function showNumber(value: number | bigint): string {
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) return String(value)
  return String(Number(value.toPrecision(6)))
}
