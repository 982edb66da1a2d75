/** The symbolic graph: tensors without values, and the ops that relate them. */
import type { OnnxNode } from '../onnx/model.ts'
import { type DType, type HostTensor, type Shape, showShape } from '../util/host-tensor.ts'

/** What is known of a tensor before it has values. */
export interface TensorType {
  readonly dtype: DType
  readonly shape: Shape
}

/** A symbolic tensor: one output of a node. */
export interface Tensor extends TensorType {
  readonly node: Node
  readonly index: number
}

/** The part of a training step that a node is for. */
export type Pass = 'forward' | 'backward' | 'update'

/** What a node is for: the names of a program's nodes tell it, and profiles add up by it. */
export interface Origin {
  readonly pass: Pass
  /** A layer of the model; in brackets, as `(loss)`, what is no layer. */
  readonly layer: string
}

/** Of what a step does besides its layers. */
export const origins = {
  data: { pass: 'forward', layer: '(data)' },
  augment: { pass: 'forward', layer: '(augment)' },
  loss: { pass: 'forward', layer: '(loss)' },
  loop: { pass: 'forward', layer: '(loop)' },
  optimizer: { pass: 'update', layer: '(optimizer)' },
} as const satisfies Record<string, Origin>

/** One use of an op. */
export interface Node {
  readonly op: OpDefinition
  readonly inputs: readonly Tensor[]
  // biome-ignore lint/suspicious/noExplicitAny: an op's attributes are typed where the op is defined.
  readonly attributes: any
  readonly outputs: readonly Tensor[]
  /** Undefined where the graph was made for no training step. */
  readonly origin: Origin | undefined
}

/** What a lowering rule writes ONNX nodes with. */
export interface Lowering {
  /** Whether the program is for others to read: plain nodes, even where others are faster. */
  readonly portable: boolean
  /** Adds a node and returns the names of its outputs. */
  emit(
    op: string,
    inputs: readonly string[],
    attributes?: OnnxNode['attributes'],
    options?: { readonly outputs?: number; readonly domain?: string },
  ): string[]
  /** The name of a constant with these values. */
  constant(value: HostTensor): string
  /** The name of a 1-D int64 constant. */
  ints(values: readonly number[]): string
}

/** Says why an op has no gradient. */
export interface NoGradient {
  readonly none: string
}

/** The cotangents of a node's inputs; undefined where an input has none. */
export type GradientRule = (
  node: Node,
  cotangents: readonly (Tensor | undefined)[],
) => readonly (Tensor | undefined)[]

/**
 * An op: its shape rule, its gradient and its ONNX lowering. An op that is a composition of others has
 * `expand`; its gradient may then be that of the composition (`'expand'`). Where an op has both `expand` and
 * `onnx`, programs for speed use the first and programs for others to read the second.
 */
export interface OpDefinition {
  readonly op: string
  // biome-ignore lint/suspicious/noExplicitAny: an op's attributes are typed where the op is defined.
  shape(inputs: readonly Tensor[], attributes: any): TensorType | readonly TensorType[]
  readonly gradient: GradientRule | NoGradient | 'expand'
  readonly onnx?: (lowering: Lowering, inputs: readonly string[], node: Node) => string | readonly string[]
  readonly expand?: (node: Node) => Tensor | readonly Tensor[]
}

// Graphs are built without a pause, so that one variable can say what for: handing it through every op's
// function would put it into every layer.
let origin: Origin | undefined

/** Runs `make`, whose nodes are for `of`. */
export function withOrigin<T>(of: Origin | undefined, make: () => T): T {
  const before = origin
  origin = of
  try {
    return make()
  } finally {
    origin = before
  }
}

/** Applies an op and returns all outputs. */
export function applyAll(
  op: OpDefinition,
  inputs: readonly Tensor[],
  attributes: object = {},
): readonly Tensor[] {
  const result = op.shape(inputs, attributes)
  const types: readonly TensorType[] = Array.isArray(result) ? result : [result]
  const outputs: Tensor[] = []
  const node: Node = { op, inputs, attributes, outputs, origin }
  for (const [index, type] of types.entries()) outputs.push({ ...type, node, index })
  return outputs
}

/** Applies an op with one output. */
export function apply(op: OpDefinition, inputs: readonly Tensor[], attributes: object = {}): Tensor {
  return applyAll(op, inputs, attributes)[0]!
}

const expansions = new WeakMap<Node, readonly Tensor[]>()

/** The tensors that a composite node stands for; the same ones at every call. */
export function expansionOf(node: Node): readonly Tensor[] {
  const known = expansions.get(node)
  if (known) return known
  const result = withOrigin(node.origin, () => node.op.expand?.(node))
  if (!result) throw new Error(`${node.op.op} has no expansion`)
  const outputs: readonly Tensor[] = Array.isArray(result) ? result : [result]
  for (const [i, output] of node.outputs.entries()) {
    const made = outputs[i]
    if (!made || showShape(made.shape) !== showShape(output.shape) || made.dtype !== output.dtype)
      throw new Error(
        `${node.op.op}: output ${i} should be ${output.dtype} ${showShape(output.shape)}, its expansion is ${made?.dtype} ${showShape(made?.shape ?? [])}`,
      )
  }
  expansions.set(node, outputs)
  return outputs
}

/**
 * The nodes that `outputs` depend on, each after its inputs. `inputsOf` may redirect a node to other inputs.
 */
export function topological(
  outputs: readonly Tensor[],
  inputsOf: (node: Node) => readonly Tensor[] = node => node.inputs,
): Node[] {
  const order: Node[] = []
  const seen = new Set<Node>()
  // An explicit stack: graphs are deeper than the call stack.
  const stack: { node: Node; inputs: readonly Tensor[]; next: number }[] = []
  const push = (node: Node) => {
    if (seen.has(node)) return
    seen.add(node)
    stack.push({ node, inputs: inputsOf(node), next: 0 })
  }
  for (const output of outputs) {
    push(output.node)
    while (stack.length > 0) {
      const top = stack[stack.length - 1]!
      const input = top.inputs[top.next++]
      if (input) push(input.node)
      else {
        order.push(top.node)
        stack.pop()
      }
    }
  }
  return order
}
