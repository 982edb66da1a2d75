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
  const constants = [...initializers, ...body.initializers]
  const outputs = new Set(body.outputs.map(({ name }) => name))
  const rowOf = (node: OnnxNode): StepRow[] => {
    const { op, attributes } = node
    const input = inputs.find(({ name }) => name === node.inputs[0])
    const [steps, ...shape] = input?.shape ?? []
    const isRow = op === 'Gather' && node.inputs[1] === number.name && intOf(attributes.axis, 0) === 0
    const isKnown = typeof steps === 'string' && shape.every(extent => typeof extent === 'number')
    if (!isRow || !input || !isKnown) return []
    return [{ value: { name: node.outputs[0]!, dtype: input.dtype, shape }, input: input.name }]
  }
  const piecesOf = (node: OnnxNode): StatePiece[] => {
    const state = states.find(({ name }) => name === node.inputs[0])
    const sizes = constants.find(({ name }) => name === node.inputs[1])?.tensor
    const isCut = node.op === 'Split' && sizes && state?.dtype === 'float32' && state.shape?.length === 1
    if (!isCut) return []
    let at = 0
    return toNumbers(sizes).map((size, i): StatePiece => {
      const value: GivenValue = { name: node.outputs[i]!, dtype: 'float32', shape: [size] }
      at += size
      return { value, state: state.name, at: at - size }
    })
  }
  const free = body.nodes.filter(node => !node.outputs.some(name => outputs.has(name)))
  const rows = free.flatMap(rowOf)
  const pieces = free.flatMap(piecesOf)
  const names = new Set([...rows, ...pieces].map(({ value }) => value.name))
  const nodes = body.nodes.filter(node => !node.outputs.some(name => names.has(name)))
  return { rows, pieces, body: { ...body, nodes } }
}
