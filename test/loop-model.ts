/** A program that is a loop of steps, of any nodes. */
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import { type HostTensor, hostTensor, sizeOf } from '../src/util/host-tensor.ts'

type Extents = readonly (number | string)[]

export interface LoopParts {
  /** Of the body. They read `data` and the states `s0`, `s1`, ..., and give `n0`, `n1`, ... */
  readonly nodes: readonly OnnxNode[]
  /** Names of the states as inputs of the program: of `a` the last value is `next/a`. */
  readonly states: readonly string[]
  readonly shape: readonly number[]
  readonly data: Extents
  /** A value of the body and its shape: the program gives that of each step as `seen`. */
  readonly seen: { readonly value: string; readonly shape: Extents }
  readonly initializers: OnnxModel['graph']['initializers']
}

export function loopModel({ nodes, states, shape, data, seen, initializers }: LoopParts): OnnxModel {
  const float = (name: string, extents: Extents) => ({ name, dtype: 'float32' as const, shape: extents })
  const identity = (input: string, output: string): OnnxNode => {
    return {
      op: 'Identity',
      name: `forward/x/Identity_${output}`,
      inputs: [input],
      outputs: [output],
      attributes: {},
    }
  }
  const body = {
    name: 'body',
    nodes: [identity('more', 'more_next'), ...nodes, identity(seen.value, 'seen_now')],
    initializers: [],
    inputs: [
      { name: 'i', dtype: 'int64' as const, shape: [] },
      { name: 'more', dtype: 'bool' as const, shape: [] },
      ...states.map((_, i) => float(`s${i}`, shape)),
    ],
    outputs: [
      { name: 'more_next', dtype: 'bool' as const, shape: [] },
      ...states.map((_, i) => float(`n${i}`, shape)),
      float('seen_now', seen.shape),
    ],
  }
  const loop: OnnxNode = {
    op: 'Loop',
    inputs: ['steps', 'true', ...states],
    outputs: [...states.map(name => `next/${name}`), 'seen'],
    attributes: { body: { graph: body } },
  }
  return {
    irVersion: 9,
    producer: 'test',
    opsets: [
      { domain: '', version: 18 },
      { domain: 'com.microsoft', version: 1 },
    ],
    graph: {
      name: 'main',
      nodes: [loop],
      initializers: [{ name: 'true', tensor: hostTensor('bool', [], [1]) }, ...initializers],
      inputs: [
        { name: 'steps', dtype: 'int64', shape: [] },
        float('data', data),
        ...states.map(name => float(name, shape)),
      ],
      outputs: [...states.map(name => float(`next/${name}`, shape)), float('seen', ['steps', ...seen.shape])],
    },
  }
}

/** Writes nodes of a body, with names of their own. */
export interface NodeBuilder {
  readonly nodes: OnnxNode[]
  readonly constants: OnnxModel['graph']['initializers'][number][]
  /** The names of the node's outputs. */
  readonly emit: (
    op: string,
    inputs: string[],
    attributes?: OnnxNode['attributes'],
    outputs?: number,
  ) => string[]
  readonly constant: (tensor: HostTensor) => string
  readonly ints: (...values: number[]) => string
}

export function nodeBuilder(): NodeBuilder {
  const nodes: OnnxNode[] = []
  const constants: NodeBuilder['constants'] = []
  const constant = (tensor: HostTensor) => {
    const name = `c${constants.length}`
    constants.push({ name, tensor })
    return name
  }
  return {
    nodes,
    constants,
    emit(op, inputs, attributes = {}, outputs = 1) {
      const names = Array.from({ length: outputs }, (_, i) => `x${nodes.length}_${i}`)
      const domain = op === 'FusedMatMul' ? { domain: 'com.microsoft' } : {}
      const name = `forward/x/${op}_${nodes.length}`
      nodes.push({ op, ...domain, name, inputs, outputs: names, attributes })
      return names
    },
    constant,
    ints: (...values) => constant(hostTensor('int64', [values.length], values)),
  }
}

/** What a loop model with one state is given: values of -1 to 1 that do not repeat. */
export function waves(shape: readonly number[], steps: number): Record<string, HostTensor> {
  const wave = (by: number) =>
    hostTensor(
      'float32',
      shape,
      Array.from({ length: sizeOf(shape) }, (_, i) => Math.sin(by * i + by)),
    )
  return { steps: hostTensor('int64', [], [steps]), data: wave(0.1), a: wave(0.3) }
}
