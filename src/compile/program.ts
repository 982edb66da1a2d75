/** What the programs have in common: how images enter, and how a body becomes a Loop over minibatches. */
import { origins, type Tensor, withOrigin } from '../graph/node.ts'
import { cast, equal } from '../graph/ops/elementwise.ts'
import { gather } from '../graph/ops/gather.ts'
import { argMax } from '../graph/ops/reduce.ts'
import { concat, reshape, split, transpose } from '../graph/ops/shape.ts'
import { input } from '../graph/ops/source.ts'
import type { Model } from '../nn/model.ts'
import type { OnnxGraph, OnnxNode, ValueInfo } from '../onnx/model.ts'
import { hostTensor, sizeOf } from '../util/host-tensor.ts'
import { emitGraph, type NamedTensor } from './emit.ts'

/** An ONNX model that is ready for a runtime. */
export interface ProgramBytes {
  readonly bytes: Uint8Array
  /** SHA-256 of the bytes. */
  readonly hash: string
}

/** The minibatch of one step, gathered from the data set that the program is given. */
export interface Minibatch {
  /** float32 [N, H, W, C], pixel values 0 to 255. */
  readonly images: Tensor
  /** int32 [N]. */
  readonly labels: Tensor
}

const iteration = input('iteration', 'int64', [])

/** The row of this iteration of a per-step input [steps, width], as [width]. */
export function rowOfStep(matrix: Tensor): Tensor {
  return reshape(gather(matrix, iteration), [matrix.shape[1]!])
}

/**
 * `images` uint8 [rows, H, W, C], `labels` int32 [rows], and `order` int32 [steps, N] name the minibatch of a
 * step.
 *
 * @param change what becomes of the images: uint8 to float32, both [N, H, W, C]. Default: nothing
 */
export function gatherMinibatch(
  model: Pick<Model, 'input'>,
  batchSize: number,
  change: (images: Tensor) => Tensor = images => cast(images, 'float32'),
): Minibatch {
  return withOrigin(origins.data, () => {
    const rows = rowOfStep(input('order', 'int32', [1, batchSize]))
    return {
      images: change(gather(input('images', 'uint8', [1, ...model.input]), rows)),
      labels: gather(input('labels', 'int32', [1]), rows),
    }
  })
}

/** The key of a random stream at this step: a uint32 scalar. */
export function keyOfStep(stream: string): Tensor {
  return reshape(rowOfStep(input(`keys/${stream}`, 'uint32', [1, 1])), [])
}

/** The inputs of random streams: for each, a key of every step. */
export const keyInputs = (streams: readonly string[]): ValueInfo[] =>
  streams.map(stream => ({ name: `keys/${stream}`, dtype: 'uint32', shape: ['steps', 1] }))

export const dataInputs = (model: Pick<Model, 'input'>, batchSize: number): ValueInfo[] => [
  { name: 'images', dtype: 'uint8', shape: ['rows', ...model.input] },
  { name: 'labels', dtype: 'int32', shape: ['rows'] },
  { name: 'order', dtype: 'int32', shape: ['steps', batchSize] },
]

/** The predicted class, int32 [N]. */
export function predictedClass(logits: Tensor): Tensor {
  return cast(argMax(logits), 'int32')
}

/** 1 where a prediction equals its label, else 0: float32 [N]. */
export function isCorrect(predicted: Tensor, labels: Tensor): Tensor {
  return cast(equal(predicted, labels), 'float32')
}

/** State that goes from step to step: an Input of the body, and its value after the step. */
export interface Carried {
  readonly state: Tensor
  readonly next: Tensor
  /** Where `state` is a vector that packs several tensors: these, as the program's callers know them. */
  readonly members?: readonly Tensor[]
  /** `state` is the transpose of its only member. */
  readonly transposed?: boolean
}

export interface LoopParts {
  readonly name: string
  /** Inputs that all steps read, in the order of the program's inputs. */
  readonly shared: readonly ValueInfo[]
  readonly carried: readonly Carried[]
  /** What each step gives: stacked into [steps, ...]. */
  readonly perStep: readonly NamedTensor[]
  /** Inputs of the body that are parts of packed state. */
  readonly alias?: ReadonlyMap<Tensor, Tensor>
  /** Further outputs, computed from the final state: Inputs named `next/NAME`. */
  readonly end?: readonly NamedTensor[]
}

export const nameOfInput = (tensor: Tensor): string => tensor.node.attributes.name as string

/** The tensors that a program's callers know as its state. */
export const stateOf = (carried: readonly Carried[]): Tensor[] =>
  carried.flatMap(({ state, members }) => members ?? [state])

/** One vector of all values of several tensors. */
export function packed(tensors: readonly Tensor[]): Tensor {
  // As rows, because sums over a minibatch, such as the gradients of biases, are rows already.
  const row = concat(
    tensors.map(tensor => reshape(tensor, [1, -1])),
    1,
  )
  return reshape(row, [-1])
}

/** The inverse of `packed`: tensors of the shapes of `like`. */
export function unpacked(vector: Tensor, like: readonly Tensor[]): Tensor[] {
  const sizes = like.map(tensor => sizeOf(tensor.shape))
  return split(vector, 0, sizes).map((piece, i) => reshape(piece, like[i]!.shape))
}

/**
 * The graph of a program: `steps` (int64) iterations of a body. State `NAME` enters under its own name and
 * leaves as `next/NAME`; each per-step value leaves under its name, stacked.
 */
export function loopGraph({ name, shared, carried, perStep, alias, end = [] }: LoopParts): OnnxGraph {
  const states = carried.map(({ state }) => state)
  const inBody = new Set(states.map(nameOfInput))
  const condition = withOrigin(origins.loop, () => input('condition', 'bool', []))
  const body = emitGraph(
    [
      { name: 'step/condition', tensor: condition },
      ...carried.map(({ state, next }) => ({ name: `step/next/${nameOfInput(state)}`, tensor: next })),
      ...perStep.map(value => ({ ...value, name: `step/${value.name}` })),
    ],
    [iteration, condition, ...states],
    {
      name: `${name} step`,
      inputName: text => (inBody.has(text) ? `step/${text}` : text),
      ...(alias ? { alias } : {}),
    },
  )
  const packs = carried.flatMap(({ state, members, transposed = false }) =>
    members ? [{ state, members, transposed }] : [],
  )
  const beginning = emitGraph(
    packs.map(({ state, members, transposed }) => ({
      name: nameOfInput(state),
      tensor: transposed ? transpose(members[0]!, [1, 0]) : packed(members),
    })),
    [],
    { prefix: 'begin/' },
  )
  const ending = emitGraph(
    [
      ...packs.flatMap(({ state, members, transposed }) => {
        const last = input(`next/${nameOfInput(state)}`, state.dtype, state.shape)
        const values = transposed ? [transpose(last, [1, 0])] : unpacked(last, members)
        return values.map((tensor, i) => ({ name: `next/${nameOfInput(members[i]!)}`, tensor }))
      }),
      ...end,
    ],
    [],
    { prefix: 'end/' },
  )
  const loop: OnnxNode = {
    op: 'Loop',
    name: 'Loop',
    inputs: ['steps', 'true', ...states.map(nameOfInput)],
    outputs: [...states.map(state => `next/${nameOfInput(state)}`), ...perStep.map(value => value.name)],
    attributes: { body: { graph: body } },
  }
  const known = stateOf(carried).map(typeOf)
  return {
    name,
    nodes: [...beginning.nodes, loop, ...ending.nodes],
    initializers: [
      { name: 'true', tensor: hostTensor('bool', [], [1]) },
      ...beginning.initializers,
      ...ending.initializers,
    ],
    inputs: [{ name: 'steps', dtype: 'int64', shape: [] }, ...shared, ...known],
    outputs: [
      ...known.map(state => ({ ...state, name: `next/${state.name}` })),
      ...perStep.map(({ name: output, tensor }) => ({
        name: output,
        dtype: tensor.dtype,
        shape: ['steps', ...tensor.shape],
      })),
      ...end.map(({ name: output, tensor }) => ({ name: output, dtype: tensor.dtype, shape: tensor.shape })),
    ],
  }
}

/** An Input's name and type. */
export function typeOf(tensor: Tensor): ValueInfo {
  return { name: nameOfInput(tensor), dtype: tensor.dtype, shape: tensor.shape }
}
