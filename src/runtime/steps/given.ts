/**
 * Values that a step is given where they lie, in place of nodes that copy them: rows of the program's inputs by the
 * step's number, and pieces of a state that many small parameters share.
 */
import { intOf } from '../../onnx/attributes.ts'
import type { OnnxGraph, OnnxNode, ValueInfo } from '../../onnx/model.ts'
import { type Shape, toNumbers } from '../../util/host-tensor.ts'

/** A value of a known shape. */
export interface GivenValue extends ValueInfo {
  readonly shape: Shape
}

/** What an input of the program has for a step. */
export interface StepRow {
  readonly value: GivenValue
  readonly input: string
}

/** Some of a state's values. */
export interface StatePiece {
  readonly value: GivenValue
  readonly state: string
  /** The number of the first of them. */
  readonly at: number
}

export interface StepGiven {
  readonly rows: readonly StepRow[]
  readonly pieces: readonly StatePiece[]
  /** The graph of a step, without the nodes that make these. */
  readonly body: OnnxGraph
}

/** @param graph the program's */
export function stepGiven({ inputs, initializers }: OnnxGraph, body: OnnxGraph): StepGiven {
  const [number, , ...states] = body.inputs as [ValueInfo, ValueInfo, ...ValueInfo[]]
  const constants = new Map([...initializers, ...body.initializers].map(({ name, tensor }) => [name, tensor]))
  const outputs = new Set(body.outputs.map(({ name }) => name))
  const rowOf = (node: OnnxNode): StepRow[] => {
    const { op, attributes } = node
    const isRow = op === 'Gather' && node.inputs[1] === number.name && intOf(attributes.axis, 0) === 0
    const input = isRow ? inputs.find(({ name }) => name === node.inputs[0]) : undefined
    const [steps, ...shape] = input?.shape ?? []
    const isKnown = typeof steps === 'string' && shape.every(extent => typeof extent === 'number')
    if (!input || !isKnown) return []
    return [{ value: { name: node.outputs[0]!, dtype: input.dtype, shape }, input: input.name }]
  }
  const piecesOf = (node: OnnxNode): StatePiece[] => {
    const state = node.op === 'Split' ? states.find(({ name }) => name === node.inputs[0]) : undefined
    const sizes = constants.get(node.inputs[1] ?? '')
    if (!sizes || state?.shape?.length !== 1) return []
    const all = toNumbers(sizes)
    return all.map((size, i): StatePiece => {
      const value: GivenValue = { name: node.outputs[i]!, dtype: 'float32', shape: [size] }
      return { value, state: state.name, at: all.slice(0, i).reduce((sum, before) => sum + before, 0) }
    })
  }
  const free = body.nodes.filter(node => !node.outputs.some(name => outputs.has(name)))
  const rows = free.flatMap(rowOf)
  const pieces = free.flatMap(piecesOf)
  const names = new Set([...rows, ...pieces].map(({ value }) => value.name))
  const nodes = body.nodes.filter(node => !node.outputs.some(name => names.has(name)))
  return { rows, pieces, body: { ...body, nodes } }
}
