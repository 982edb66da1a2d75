/** Nodes whose value falls into parts along its first axis, each of which comes of the same part of what they read. */
import { intOf, intsOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { normalizeAxis } from '../../util/broadcast.ts'
import type { HostTensor, Shape } from '../../util/host-tensor.ts'
import { isElementwise } from './kernel.ts'
import type { StepBody } from './step-body.ts'
import { isProduct } from './weights.ts'

/** What of an input parts of a node's value come of: parts along its first axis, or its second, or all of it. */
export type Role = 'part' | 'columns' | 'whole'

/** Operators that go element by element and that no kernel has: activations, random bits, labels. */
const withoutKernel: ReadonlySet<string> = new Set([
  ...['Elu', 'Erf', 'Exp', 'Log', 'Pow', 'Sigmoid', 'Softplus', 'Tanh'],
  ...['BitShift', 'BitwiseXor', 'BitwiseAnd', 'Cos', 'Sin'],
  ...['Cast', 'Equal', 'Greater', 'Less', 'Not', 'Where'],
])

/** Whether each element of a node's value comes of one element of each input, which may be broadcast. */
export const isByElement = (node: OnnxNode): boolean =>
  (isElementwise(node) && node.op !== 'Reshape' && node.op !== 'Identity') || withoutKernel.has(node.op)

/** For each input; undefined where the node's value is not made part by part. */
export function rolesOf(node: OnnxNode, body: StepBody): readonly Role[] | undefined {
  const { outputs, inputs } = node
  const isPlain = outputs.length === 1 && inputs.every(name => name !== '') && !body.isAlias(node)
  if (!isPlain || !body.isOfOneShape(outputs[0]!)) return undefined
  const roles = rolesByOperator(node, body)
  return roles?.every((role, i) => canBe(inputs[i]!, role, body)) ? roles : undefined
}

/** Whether parts of a node can read a value so: constants are the same in each part; the data is whole. */
export function canBe(name: string, role: Role, body: StepBody): boolean {
  if (body.shapeOfData(name)) return role === 'whole'
  const constant = body.constant(name)
  return constant ? role === 'whole' || (role === 'part' && isUniform(constant)) : body.isOfOneShape(name)
}

/** Whether all slices of a constant along its first axis are equal. */
export function isUniform({ shape, data }: HostTensor): boolean {
  const rows = shape[0] ?? 1
  const size = data.length / rows
  return Array.from(data as ArrayLike<unknown>).every((value, i) => value === data[i % size])
}

function rolesByOperator(node: OnnxNode, body: StepBody): readonly Role[] | undefined {
  const { op, inputs, attributes } = node
  const { shape } = body.typeOf(node.outputs[0]!)
  const shapes = inputs.map(name => body.typeOf(name).shape)
  const axisOf = (axis: number) => normalizeAxis(op, axis, shapes[0]!.length)
  if (isProduct(node)) {
    const { transA, transBatchA, transBatchB } = attributes
    const isPlain = intOf(transBatchA, 0) === 0 && intOf(transBatchB, 0) === 0
    if (!isPlain) return undefined
    if (shape.length > 2) return broadcastRoles(shape, shapes)
    if (shape.length < 2 || shapes[0]!.length > 2) return undefined
    const isBias = ([first, ...others]: Shape) => others.length === 0 || first === 1
    const left = intOf(transA, 0) === 0 ? 'part' : 'columns'
    return shapes.map((own, i) => (i === 0 ? left : i === 1 || isBias(own) ? 'whole' : 'part'))
  }
  switch (op) {
    case 'Softmax':
    case 'LogSoftmax':
    case 'ArgMax':
      return axisOf(intOf(attributes.axis, op === 'ArgMax' ? 0 : -1)) > 0 ? ['part'] : undefined
    case 'Gather':
      return axisOf(intOf(attributes.axis, 0)) === 0 && shapes[1]!.length > 0 ? ['whole', 'part'] : undefined
    case 'Transpose':
      return intsOf(attributes.perm)?.[0] === 0 ? ['part'] : undefined
    case 'Concat':
      return axisOf(intOf(attributes.axis, 0)) > 0 ? inputs.map(() => 'part') : undefined
    case 'ReduceSum': {
      const axes = body.numbersOf(inputs[1] ?? '')
      const isWithin = axes && axes.length > 0 && axes.every(axis => axisOf(axis) > 0)
      return isWithin ? ['part', 'whole'] : undefined
    }
    default:
      return isByElement(node) ? broadcastRoles(shape, shapes) : undefined
  }
}

function broadcastRoles(shape: Shape, shapes: readonly Shape[]): Role[] {
  return shapes.map(own => (own.length === shape.length && own[0] !== 1 ? 'part' : 'whole'))
}
