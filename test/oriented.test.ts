/** Graphs with matrices laid as their products had better have them compute what they computed before. */
import { beforeAll, describe, expect, test } from 'vitest'
import { intOf } from '../src/onnx/attributes.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxGraph, OnnxNode, ValueInfo } from '../src/onnx/model.ts'
import { NativeRuntime } from '../src/runtime/steps/onnxruntime.ts'
import { oriented } from '../src/runtime/steps/oriented.ts'
import { type HostTensor, hostTensor, type Shape, sizeOf } from '../src/util/host-tensor.ts'
import { expectSame } from './step-runs.ts'

const IMAGES = 32
const [PIXELS, UNITS] = [784, 128]

const node = (
  op: string,
  inputs: string[],
  output: string,
  attributes: OnnxNode['attributes'] = {},
): OnnxNode => ({
  op,
  inputs,
  outputs: [output],
  attributes,
})
const turned = (a: 0 | 1, b: 0 | 1) => ({ transA: { int: a }, transB: { int: b } })
const infos = (shapes: Readonly<Record<string, Shape>>): ValueInfo[] =>
  Object.entries(shapes).map(([name, shape]) => ({ name, dtype: 'float32', shape }))

/** One layer forward and backward: weights [units, pixels], a bias, the next layer's weights. */
const layer = (bias: Shape, extra: readonly OnnxNode[] = [], outputs: Readonly<Record<string, Shape>> = {}) =>
  ({
    name: 'layer',
    nodes: [
      node('Gemm', ['x', 'w'], 'product', turned(0, 1)),
      node('Add', ['product', 'b'], 'sum'),
      node('Relu', ['sum'], 'h'),
      node('MatMul', ['h', 'v'], 'next'),
      node('Gemm', ['next', 'v'], 'dh', turned(0, 1)),
      node('Mul', ['dh', 'h'], 'masked'),
      node('Gemm', ['masked', 'x'], 'dw', turned(1, 0)),
      node('MatMul', ['ones', 'masked'], 'db'),
      ...extra,
    ],
    initializers: [{ name: 'ones', tensor: hostTensor('float32', [1, IMAGES], new Array(IMAGES).fill(1)) }],
    inputs: infos({ x: [IMAGES, PIXELS], w: [UNITS, PIXELS], b: bias, v: [UNITS, 10] }),
    outputs: infos({ next: [IMAGES, 10], dw: [UNITS, PIXELS], db: [1, UNITS], ...outputs }),
  }) satisfies OnnxGraph

/** Of both signs, and no two alike. */
const wave = (count: number, from: number) =>
  Array.from({ length: count }, (_, i) => Math.sin(7.3 * i + from) / 8)

let runtime: NativeRuntime
beforeAll(() => {
  runtime = new NativeRuntime()
})

function resultsOf(graph: OnnxGraph): Record<string, HostTensor> {
  const opsets = [{ domain: '', version: 18 }]
  const session = runtime.session(encodeModel({ irVersion: 9, producer: 'test', opsets, graph }), {
    threads: 1,
  })
  const tensorOf = (shape: Shape, at: number) => hostTensor('float32', shape, wave(sizeOf(shape), at))
  const inputs = graph.inputs.map(({ name, shape }, i) => [name, tensorOf(shape as Shape, i + 1)] as const)
  const outputs = graph.outputs.map(({ name, shape }) => [name, tensorOf(shape as Shape, 99)] as const)
  const made = Object.fromEntries(outputs)
  session.run(Object.fromEntries(inputs), made)
  session.release()
  return made
}

const nodeOf = (graph: OnnxGraph, output: string) => graph.nodes.find(({ outputs }) => outputs[0] === output)

const transposesOf = ({ attributes }: OnnxNode) =>
  [attributes.transA, attributes.transB].map(attribute => intOf(attribute, 0))

const expectSameResults = (graph: OnnxGraph, other: OnnxGraph) =>
  expectSame(resultsOf(other), resultsOf(graph), 5e-5)

/** The graph's nodes, one of which is a product that adds something itself. */
const summedBy = (product: OnnxNode, { nodes }: OnnxGraph) =>
  nodes.flatMap(own => (own.op === 'Add' ? [] : own.outputs[0] === 'product' ? product : own))

describe('a layer of few images', () => {
  test.each([
    ['a vector', [UNITS]],
    ['a row', [1, UNITS]],
  ] as const)('is computed transposed, with %s as its bias, which the product adds', (_, shape) => {
    const graph = layer(shape)
    const result = oriented(graph)
    const sum = nodeOf(result, 'sum')!
    expect([sum.op, ...sum.inputs.slice(0, 2)]).toEqual(['Gemm', 'w', 'x'])
    expect(transposesOf(sum)).toEqual([0, 1])
    expect(nodeOf(result, 'product')).toBeUndefined()
    // Its readers take it so, and the gradient of its weights copies nothing.
    expect(transposesOf(nodeOf(result, 'next')!)).toEqual([1, 0])
    expect(nodeOf(result, 'dw')!.inputs).toEqual(['masked', 'x'])
    expect(transposesOf(nodeOf(result, 'dw')!)).toEqual([0, 0])
    expect(transposesOf(nodeOf(result, 'db')!)).toEqual([0, 1])
    expectSameResults(graph, result)
  })

  test('with a bias for each image, a constant one, and one number', () => {
    for (const shape of [[IMAGES, 1], [1], [1, 1], []]) {
      const graph = layer(shape)
      expect(nodeOf(oriented(graph), 'sum')!.inputs.slice(0, 2)).toEqual(['w', 'x'])
      expectSameResults(graph, oriented(graph))
    }
    const graph = layer([UNITS])
    const tensor = hostTensor('float32', [UNITS], wave(UNITS, 7))
    const constant = {
      ...graph,
      inputs: graph.inputs.filter(({ name }) => name !== 'b'),
      initializers: [...graph.initializers, { name: 'b', tensor }],
    }
    expect(oriented(constant).nodes.some(({ op }) => op === 'Reshape')).toBe(false)
    expectSameResults(constant, oriented(constant))
  })

  test('whose product adds a matrix that is given stays as it is', () => {
    const graph = layer([UNITS])
    const nodes = summedBy(node('Gemm', ['x', 'w', 'm'], 'sum', turned(0, 1)), graph)
    const added = { ...graph, nodes, inputs: [...graph.inputs, ...infos({ m: [IMAGES, UNITS] })] }
    expect(nodeOf(oriented(added), 'sum')!.inputs).toEqual(['x', 'w', 'm'])
    expectSameResults(added, oriented(added))
  })

  test('with a matrix that only it reads, and that is given, stays as it is', () => {
    const graph = layer([UNITS], [node('Gemm', ['p', 'v'], 'q')], { q: [IMAGES, 10] })
    const nodes = [...graph.nodes.slice(0, -1), node('Mul', ['h', 'm'], 'p'), ...graph.nodes.slice(-1)]
    const masked = { ...graph, nodes, inputs: [...graph.inputs, ...infos({ m: [IMAGES, UNITS] })] }
    const result = oriented(masked)
    expect((nodeOf(result, 'product') ?? nodeOf(result, 'sum'))!.inputs.slice(0, 2)).toEqual(['x', 'w'])
    expectSameResults(masked, result)
  })

  test('whose product has an addend and a factor keeps both', () => {
    const graph = layer([UNITS])
    const attributes = { ...turned(0, 1), alpha: { float: 0.5 }, beta: { float: 2 } }
    const nodes = summedBy(node('Gemm', ['x', 'w', 'b'], 'sum', attributes), graph)
    const scaled = { ...graph, nodes }
    expect(nodeOf(oriented(scaled), 'sum')!.inputs.slice(0, 2)).toEqual(['w', 'x'])
    expectSameResults(scaled, oriented(scaled))
  })

  test.each([
    ['an output', [], { sum: [IMAGES, UNITS] }],
    ['read along an axis', [node('Softmax', ['h'], 'p')], { p: [IMAGES, UNITS] }],
    ['added to a product', [node('Gemm', ['next', 'v', 'h'], 'q', turned(0, 1))], { q: [IMAGES, UNITS] }],
    ['computed with what lies as it is given', [node('Mul', ['h', 'm'], 'p')], { p: [IMAGES, UNITS] }],
  ] as [string, OnnxNode[], Record<string, Shape>][])(
    'stays as it is where one of its values is %s',
    (_, extra, outputs) => {
      const graph = layer([UNITS], extra, outputs)
      const inputs = [...graph.inputs, ...infos({ m: [IMAGES, UNITS] })]
      const result = oriented({ ...graph, inputs })
      const first = nodeOf(result, 'product') ?? nodeOf(result, 'sum')!
      expect(first.inputs.slice(0, 2)).toEqual(['x', 'w'])
      expect(transposesOf(nodeOf(result, 'dw')!)).toEqual([1, 0])
      expectSameResults({ ...graph, inputs }, result)
    },
  )
})

test('a layer of more images than units stays as it is', () => {
  const shapes = { x: [1024, 64], w: [32, 64], v: [32, 8] }
  const graph = {
    name: 'layer',
    nodes: [
      node('Gemm', ['x', 'w'], 'h', turned(0, 1)),
      node('Relu', ['h'], 'r'),
      node('MatMul', ['r', 'v'], 'next'),
    ],
    initializers: [],
    inputs: infos(shapes),
    outputs: infos({ next: [1024, 8] }),
  }
  expect(oriented(graph)).toBe(graph)
})

describe('what is added to a product of its own', () => {
  const summed = (op: string, extra: readonly OnnxNode[], outputs: Readonly<Record<string, Shape>>) => ({
    name: 'sum',
    nodes: [node(op, ['x', 'w'], 'product', op === 'Gemm' ? turned(1, 0) : {}), ...extra],
    initializers: [],
    inputs: infos({ x: [16, 16], w: [16, 16], b: [16], m: [16, 16], t: [2, 1, 1] }),
    outputs: infos(outputs),
  })
  const add = node('Add', ['b', 'product'], 'sum')

  test('is added by it', () => {
    const graph = summed('Gemm', [add], { sum: [16, 16] })
    expect(oriented(graph).nodes).toEqual([{ ...graph.nodes[0], inputs: ['x', 'w', 'b'], outputs: ['sum'] }])
    expectSameResults(graph, oriented(graph))
  })

  test('stays a node where the product has an addend, or a share for one', () => {
    const graph = summed('Gemm', [add], { sum: [16, 16] })
    const [product, ...others] = graph.nodes as [OnnxNode, OnnxNode]
    const added = { ...product, inputs: ['x', 'w', 'm'] }
    const shared = { ...product, attributes: { ...product.attributes, beta: { float: 2 } } }
    for (const other of [added, shared]) {
      const own = { ...graph, nodes: [other, ...others] }
      expect(oriented(own)).toBe(own)
    }
  })

  test.each([
    ['where ONNX Runtime sees to it', 'MatMul', [add], { sum: [16, 16] }],
    ['where the product is an output', 'Gemm', [add], { sum: [16, 16], product: [16, 16] }],
    [
      'where another reads the product',
      'Gemm',
      [add, node('Relu', ['product'], 'r')],
      { sum: [16, 16], r: [16, 16] },
    ],
    ['where it is a whole matrix', 'Gemm', [node('Add', ['product', 'm'], 'sum')], { sum: [16, 16] }],
    ['where the product is repeated', 'Gemm', [node('Add', ['product', 't'], 'sum')], { sum: [2, 16, 16] }],
    ['where both are the product', 'Gemm', [node('Add', ['product', 'product'], 'sum')], { sum: [16, 16] }],
  ] as [string, string, OnnxNode[], Record<string, Shape>][])('stays a node %s', (_, op, extra, outputs) => {
    const graph = summed(op, extra, outputs)
    expect(oriented(graph)).toBe(graph)
  })
})

test('graphs of operators that are not known, and of graphs within, stay as they are', () => {
  const graph = layer([UNITS])
  const unknown = { ...graph, nodes: [...graph.nodes, node('Unknown', ['next'], 'u')] }
  expect(oriented(unknown)).toBe(unknown)
  const nested = { ...graph, nodes: [...graph.nodes, node('If', ['c'], 'i', { then_branch: { graph } })] }
  expect(oriented(nested)).toBe(nested)
})

describe('pixels that are scaled and moved', () => {
  const numbers = { third: 1 / 3, less: -0.25, vector: 0.5 }
  const scaledLayer = (nodes: readonly OnnxNode[], outputs: Readonly<Record<string, Shape>> = {}) => {
    const graph = layer([UNITS], [], outputs)
    return {
      ...graph,
      nodes: [...nodes, ...graph.nodes],
      initializers: [
        ...graph.initializers,
        ...Object.entries(numbers).map(([name, value]) => ({
          name,
          tensor: hostTensor('float32', [1, 1], [value]),
        })),
        { name: 'flat', tensor: hostTensor('int64', [2], [IMAGES, PIXELS]) },
      ],
      inputs: [
        ...graph.inputs.slice(1),
        ...infos({
          pixels: [IMAGES, 28, 28],
          m: [1, PIXELS],
          left: [IMAGES, 8],
          right: [8, PIXELS],
          u: [28, 4],
        }),
      ],
    }
  }
  const scale = node('Mul', ['pixels', 'third'], 'scaled')
  const move = node('Add', ['scaled', 'less'], 'moved')
  const alphaOf = (graph: OnnxGraph, output: string) => nodeOf(graph, output)!.attributes.alpha

  test.each([
    ['both', [scale, move, node('Reshape', ['moved', 'flat'], 'x')], 3],
    ['scaled only', [scale, node('Reshape', ['scaled', 'flat'], 'x')], 2],
    [
      'moved in their other shape',
      [scale, node('Reshape', ['scaled', 'flat'], 'y'), node('Add', ['y', 'less'], 'x')],
      3,
    ],
  ] as [string, OnnxNode[], number][])('are scaled by the products: %s', (_, nodes, count) => {
    const graph = scaledLayer(nodes)
    const result = oriented(graph)
    expect(nodeOf(result, 'scaled')).toBeUndefined()
    expect(result.nodes.filter(({ op }) => op === 'Add' || op === 'Reshape')).toHaveLength(count)
    for (const output of ['sum', 'dw']) expect(alphaOf(result, output)).toEqual({ float: Math.fround(1 / 3) })
    expect(alphaOf(result, 'db')).toBeUndefined()
    expectSameResults(graph, result)
  })

  test('a product that reads them twice multiplies twice', () => {
    const reshape = node('Reshape', ['scaled', 'flat'], 'x')
    const square = node('Gemm', ['x', 'x'], 'square', turned(0, 1))
    const graph = scaledLayer([scale, reshape, square], { square: [IMAGES, IMAGES] })
    const factor = Math.fround(Math.fround(1 / 3) * Math.fround(1 / 3))
    expect(alphaOf(oriented(graph), 'square')).toEqual({ float: factor })
    expectSameResults(graph, oriented(graph))
  })

  test.each([
    [
      'another node reads them',
      [scale, move, node('Reshape', ['moved', 'flat'], 'x'), node('Relu', ['x'], 'r')],
      { r: [IMAGES, PIXELS] },
    ],
    ['they are an output', [scale, node('Reshape', ['scaled', 'flat'], 'x')], { scaled: [IMAGES, 28, 28] }],
    [
      'they are moved by more than a number',
      [scale, node('Reshape', ['scaled', 'flat'], 'y'), node('Add', ['y', 'm'], 'x')],
      {},
    ],
    [
      'something else is added to them',
      [scale, node('Reshape', ['scaled', 'flat'], 'y'), node('Add', ['m', 'y'], 'x')],
      {},
    ],
    [
      'a product adds them',
      [scale, node('Reshape', ['scaled', 'flat'], 'x'), node('Gemm', ['left', 'right', 'x'], 'q')],
      { q: [IMAGES, PIXELS] },
    ],
    [
      'products are many',
      [scale, node('Reshape', ['scaled', 'flat'], 'x'), node('MatMul', ['scaled', 'u'], 'q')],
      { q: [IMAGES, 28, 4] },
    ],
  ] as [string, OnnxNode[], Record<string, Shape>][])('are scaled before where %s', (_, nodes, outputs) => {
    const graph = scaledLayer(nodes, outputs)
    const result = oriented(graph)
    expect(nodeOf(result, 'scaled')).toEqual(scale)
    expectSameResults(graph, result)
  })

  test('are scaled before where the number gives them another rank', () => {
    const initializers = [{ name: 'half', tensor: hostTensor('float32', [1, 1], [0.5]) }]
    const graph = {
      name: 'row',
      nodes: [node('Mul', ['x', 'half'], 'scaled'), node('MatMul', ['scaled', 'w'], 'p')],
      initializers,
      inputs: infos({ x: [16], w: [16, 8] }),
      outputs: infos({ p: [1, 8] }),
    }
    expect(oriented(graph)).toBe(graph)
  })

  test('are scaled before by numbers that might leave what float32 has', () => {
    const graph = scaledLayer([scale, node('Reshape', ['scaled', 'flat'], 'x')])
    for (const value of [0, 1e-30, 1e30, Number.NaN, Infinity]) {
      const initializers = graph.initializers.map(own =>
        own.name === 'third' ? { ...own, tensor: hostTensor('float32', [1], [value]) } : own,
      )
      expect(nodeOf(oriented({ ...graph, initializers }), 'scaled')).toEqual(scale)
    }
  })
})
