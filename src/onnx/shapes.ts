/**
 * The types and shapes of a graph's values, node by node: those operators that Fovea's programs are made of, by
 * the public operator specification, github.com/onnx/onnx, docs/Operators.md.
 */
import { FoveaError } from '../util/errors.ts'
import { type DType, type HostTensor, type Shape, showShape, sizeOf, toNumbers } from '../util/host-tensor.ts'
import { intOf, intsOf } from './attributes.ts'
import type { OnnxGraph, OnnxNode } from './model.ts'
import { elementTypes } from './schema.ts'

/** What is known of a value before it is computed. */
export interface ValueType {
  readonly dtype: DType
  readonly shape: Shape
}

/** Shapes that a graph does not fix, such as the number of steps of a program: name -> extent. */
export type Extents = Readonly<Record<string, number>>

/** One node with the types of what it reads and gives. Inputs that are left out are left out here too. */
export interface TypedNode {
  readonly node: OnnxNode
  readonly inputs: readonly ValueType[]
  readonly outputs: readonly ValueType[]
}

interface Values {
  readonly types: ReadonlyMap<string, ValueType>
  readonly constants: ReadonlyMap<string, HostTensor>
}

/**
 * The nodes of `graph` with their types.
 *
 * @param extents extents that inputs name
 * @param outer the values of an enclosing graph, see {@link valuesOf}
 * @throws FoveaError at an operator that has no rule here
 */
export function typedNodes(graph: OnnxGraph, extents: Extents, outer?: Values): TypedNode[] {
  const types = new Map<string, ValueType>(outer?.types)
  const constants = new Map<string, HostTensor>(outer?.constants)
  for (const [name, value] of valuesOf(graph, extents).types) types.set(name, value)
  for (const { name, tensor } of graph.initializers) constants.set(name, tensor)
  return graph.nodes.map(node => {
    const present = node.inputs.filter(name => name !== '')
    const inputs = present.map(name => {
      const type = types.get(name)
      if (type) return type
      throw new FoveaError(`${graph.name}: the type of "${name}", which ${node.op} reads, is not known`)
    })
    const rule = rules[node.op]
    if (!rule) throw new FoveaError(`${graph.name}: the shape rule of ${node.op} is missing`)
    const outputs = rule(inputs, attributesOf(node), i => integersAt(node, i, constants))
    for (const [i, output] of outputs.entries()) types.set(node.outputs[i]!, output)
    return { node, inputs, outputs }
  })
}

/**
 * The types of all values of `graph`, and of an enclosing one.
 *
 * @throws FoveaError as {@link typedNodes} does
 */
export function typesOf(graph: OnnxGraph, extents: Extents, outer?: Values): Map<string, ValueType> {
  const types = new Map([...(outer?.types ?? []), ...valuesOf(graph, extents).types])
  for (const { node, outputs } of typedNodes(graph, extents, outer))
    for (const [i, type] of outputs.entries()) types.set(node.outputs[i]!, type)
  return types
}

/** The types of a graph's inputs and initializers. */
export function valuesOf(graph: OnnxGraph, extents: Extents): Values {
  const inputs = graph.inputs.map(({ name, dtype, shape = [] }) => {
    const known = shape.map(extent => (typeof extent === 'number' ? extent : extents[extent]))
    if (known.every(extent => extent !== undefined)) return [name, { dtype, shape: known }] as const
    throw new FoveaError(`${graph.name}: an extent of "${name}" ${showShape(shape)} is not known`)
  })
  const initializers = graph.initializers.map(
    ({ name, tensor: { dtype, shape } }) => [name, { dtype, shape }] as const,
  )
  const constants = new Map(graph.initializers.map(({ name, tensor }) => [name, tensor]))
  return { types: new Map<string, ValueType>([...inputs, ...initializers]), constants }
}

interface Attributes {
  int(name: string, absent: number): number
  ints(name: string): readonly number[] | undefined
}

function attributesOf(node: OnnxNode): Attributes {
  return {
    int: (name, absent) => intOf(node.attributes[name], absent),
    ints: name => intsOf(node.attributes[name]),
  }
}

/** The values of an input that is a constant. */
function integersAt(
  node: OnnxNode,
  index: number,
  constants: ReadonlyMap<string, HostTensor>,
): readonly number[] | undefined {
  const name = node.inputs[index]
  if (!name) return undefined
  const value = constants.get(name)
  if (value) return toNumbers(value)
  throw new FoveaError(`${node.op}: expected input ${index}, "${name}", to be a constant`)
}

type Rule = (
  inputs: readonly ValueType[],
  attributes: Attributes,
  /** The values of an input that is a constant; undefined where it is left out. */
  constant: (index: number) => readonly number[] | undefined,
) => readonly ValueType[]

const like: Rule = ([x]) => [x!]

const elementwise: Rule = inputs => [
  { dtype: inputs[0]!.dtype, shape: inputs.map(({ shape }) => shape).reduce(broadcast) },
]

const comparison: Rule = inputs => [
  { dtype: 'bool', shape: inputs.map(({ shape }) => shape).reduce(broadcast) },
]

const reduction: Rule = ([x], attributes, constant) => {
  const axes = (constant(1) ?? x!.shape.map((_, i) => i)).map(axis => from(axis, x!.shape))
  const kept = x!.shape.map((extent, i) => (axes.includes(i) ? 1 : extent))
  const shape = attributes.int('keepdims', 1) ? kept : kept.filter((_, i) => !axes.includes(i))
  return [{ dtype: x!.dtype, shape }]
}

const product: Rule = ([a, b], attributes) => {
  const [m] = matrix(a!.shape, attributes.int('transA', 0))
  const [, n] = matrix(b!.shape, attributes.int('transB', 0))
  return [{ dtype: a!.dtype, shape: [...broadcast(a!.shape.slice(0, -2), b!.shape.slice(0, -2)), m, n] }]
}

const rules: Readonly<Record<string, Rule>> = {
  ...named(
    like,
    'Abs Clip Cos Elu Erf Exp HardSigmoid Identity LeakyRelu Log LogSoftmax Neg Reciprocal Relu Sigmoid Sin Softmax Softplus Sqrt Tanh',
  ),
  ...named(elementwise, 'Add BitShift BitwiseXor Div Max Min Mul Pow Sub'),
  ...named(comparison, 'Equal Less'),
  ...named(reduction, 'ReduceL1 ReduceMax ReduceSum ReduceSumSquare'),
  ...named(product, 'FusedMatMul Gemm MatMul'),
  Cast: ([x], attributes) => [{ dtype: dtypeOf(attributes.int('to', 0)), shape: x!.shape }],
  Reshape: ([x], _, constant) => {
    const asked = constant(1)!
    const known = asked.map((extent, i) => (extent === 0 ? x!.shape[i]! : extent))
    const rest = sizeOf(x!.shape) / sizeOf(known.filter(extent => extent >= 0))
    return [{ dtype: x!.dtype, shape: known.map(extent => (extent < 0 ? rest : extent)) }]
  },
  Transpose: ([x], attributes) => {
    const perm = attributes.ints('perm') ?? x!.shape.map((_, i) => x!.shape.length - 1 - i)
    return [{ dtype: x!.dtype, shape: perm.map(axis => x!.shape[axis]!) }]
  },
  Expand: ([x], _, constant) => [{ dtype: x!.dtype, shape: broadcast(x!.shape, constant(1)!) }],
  Tile: ([x], _, constant) => {
    const times = constant(1)!
    return [{ dtype: x!.dtype, shape: x!.shape.map((extent, i) => extent * times[i]!) }]
  },
  Concat: (inputs, attributes) => {
    const [{ dtype, shape }] = inputs as readonly [ValueType]
    const axis = from(attributes.int('axis', 0), shape)
    const total = inputs.reduce((sum, input) => sum + input.shape[axis]!, 0)
    return [{ dtype, shape: shape.with(axis, total) }]
  },
  Split: ([x], attributes, constant) => {
    const axis = from(attributes.int('axis', 0), x!.shape)
    return constant(1)!.map(extent => ({ dtype: x!.dtype, shape: x!.shape.with(axis, extent) }))
  },
  Slice: ([x], _, constant) => {
    const [starts, ends] = [constant(1)!, constant(2)!]
    const axes = constant(3) ?? starts.map((_start, i) => i)
    const steps = constant(4) ?? starts.map(() => 1)
    const shape = [...x!.shape]
    for (const [i, of] of axes.entries()) {
      const axis = from(of, shape)
      const within = (at: number) => Math.min(shape[axis]!, at < 0 ? at + shape[axis]! : at)
      shape[axis] = Math.ceil((within(ends[i]!) - within(starts[i]!)) / steps[i]!)
    }
    return [{ dtype: x!.dtype, shape }]
  },
  Pad: ([x], _, constant) => {
    const pads = constant(1)!
    const { length } = x!.shape
    return [{ dtype: x!.dtype, shape: x!.shape.map((extent, i) => extent + pads[i]! + pads[i + length]!) }]
  },
  Gather: ([x, indices], attributes) => {
    const axis = from(attributes.int('axis', 0), x!.shape)
    const shape = [...x!.shape.slice(0, axis), ...indices!.shape, ...x!.shape.slice(axis + 1)]
    return [{ dtype: x!.dtype, shape }]
  },
  GatherElements: ([x, indices]) => [{ dtype: x!.dtype, shape: indices!.shape }],
  ScatterND: like,
  // x [N, C, H, W], places [N, H', W', 2]
  GridSample: ([x, places]) => [
    { dtype: x!.dtype, shape: [...x!.shape.slice(0, 2), ...places!.shape.slice(1, -1)] },
  ],
  ArgMax: ([x], attributes) => {
    const axis = from(attributes.int('axis', 0), x!.shape)
    const shape = attributes.int('keepdims', 1) ? x!.shape.with(axis, 1) : x!.shape.toSpliced(axis, 1)
    return [{ dtype: 'int64', shape }]
  },
  TopK: ([x], attributes, constant) => {
    const shape = x!.shape.with(from(attributes.int('axis', -1), x!.shape), constant(1)![0]!)
    return [
      { dtype: x!.dtype, shape },
      { dtype: 'int64', shape },
    ]
  },
}

function named(rule: Rule, ops: string): Record<string, Rule> {
  return Object.fromEntries(ops.split(' ').map(op => [op, rule]))
}

/** An axis counted from the end, from the front. */
function from(axis: number, { length }: Shape): number {
  return axis < 0 ? axis + length : axis
}

/** numpy's rule: shapes are aligned at their ends, and extents of 1 are repeated. */
function broadcast(a: Shape, b: Shape): Shape {
  const length = Math.max(a.length, b.length)
  return Array.from({ length }, (_, i) => {
    const [m = 1, n = 1] = [a.at(i - length), b.at(i - length)]
    return m === 1 ? n : m
  })
}

function matrix(shape: Shape, transposed: number): [number, number] {
  const [rows, columns] = shape.slice(-2) as [number, number]
  return transposed ? [columns, rows] : [rows, columns]
}

function dtypeOf(type: number): DType {
  const found = Object.entries(elementTypes).find(([, number]) => number === type)
  if (found) return found[0] as DType
  throw new FoveaError(`Cast: element type ${type} is none that Fovea holds`)
}
