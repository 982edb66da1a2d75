/**
 * What a training step costs, without a clock: nodes, multiply-adds and bytes of every network against a table
 * that is committed, and the counting itself by hand.
 */
import { describe, expect, test } from 'vitest'
import { changes, committedCosts, costOf } from '../scripts/program-costs.ts'
import { emitGraph } from '../src/compile/emit.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { input } from '../src/graph/ops/source.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adam } from '../src/nn/optimizers.ts'
import { costOfNode, stepCost, stepNodes } from '../src/onnx/cost.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import type { OnnxGraph, OnnxModel } from '../src/onnx/model.ts'
import { typedNodes, type ValueType } from '../src/onnx/shapes.ts'
import { openEngine } from '../src/runtime/node.ts'
import type { DType } from '../src/util/host-tensor.ts'
import { architectureNamed, architectures } from '../src/zoo/index.ts'
import { gradientTable } from './gradients.table.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

const committed = await committedCosts()

test.for(architectures)('a step of $name costs what it did', architecture => {
  const { name } = architecture
  expect(
    changes(name, committed[name], costOf(architecture)),
    'where this is meant: node scripts/program-costs.ts writes the table anew',
  ).toEqual([])
})

test('the table has no other networks', () => {
  expect(Object.keys(committed)).toEqual(architectures.map(({ name }) => name))
})

test('a change is told with its figures', () => {
  const before = { nodes: 100, multiplyAdds: 1000, bytes: 5, ops: { Add: 4, Mul: 1 } }
  const after = { nodes: 112, multiplyAdds: 1000, bytes: 4, ops: { Add: 4, Sub: 2 } }
  expect(changes('net', before, after)).toEqual([
    'net nodes: 100 -> 112 (+12.0 %)',
    'net bytes: 5 -> 4 (-20.0 %)',
    'net Mul: 1 -> 0 (-100.0 %)',
    'net Sub: 0 -> 2',
  ])
  expect(changes('net', before, before)).toEqual([])
  expect(changes('net', undefined, after)).toEqual(['net: is not in the table'])
})

describe('a node', () => {
  const of = (dtype: DType, ...shape: number[]): ValueType => ({ dtype, shape })
  const float = (...shape: number[]) => of('float32', ...shape)

  test('products, whichever factor is transposed', () => {
    const products = 2 * 3 * 4 * 5
    const bytes = 4 * 2 * (3 * 4 + 4 * 5 + 3 * 5)
    const y = [float(2, 3, 5)]
    expect(costOfNode('MatMul', [float(2, 3, 4), float(2, 4, 5)], y)).toEqual({
      multiplyAdds: products,
      bytes,
    })
    const turned = [float(2, 4, 3), float(2, 5, 4)]
    expect(costOfNode('FusedMatMul', turned, y)).toEqual({ multiplyAdds: products, bytes })
    const fused = costOfNode('FusedGemm', [float(4, 3), float(4, 5), float(5)], [float(3, 5)])
    expect(fused).toEqual({ multiplyAdds: 3 * 4 * 5, bytes: 4 * (12 + 20 + 5 + 15) })
  })

  test('convolutions, of the channels of a group', () => {
    const cost = costOfNode('Conv', [float(2, 6, 9, 9), float(4, 3, 5, 5)], [float(2, 4, 5, 5)])
    expect(cost.multiplyAdds).toBe(2 * 4 * 5 * 5 * 3 * 5 * 5)
  })

  test('bytes: a view none, a selection what it gives, anything else all', () => {
    const bytes = (...args: Parameters<typeof costOfNode>) => costOfNode(...args).bytes
    expect(bytes('Reshape', [float(6), of('int64', 2)], [float(2, 3)])).toBe(0)
    const rows = [of('uint8', 60_000, 784), of('int32', 32)]
    expect(bytes('Gather', rows, [of('uint8', 32, 784)])).toBe(2 * 32 * 784 + 4 * 32)
    expect(bytes('Equal', [float(8), float(1)], [of('bool', 8)])).toBe(32 + 4 + 8)
  })
})

test('shapes: every op has those of the graph, whatever nodes it becomes', () => {
  for (const [op, entry] of Object.entries(gradientTable))
    for (const { inputs, build } of 'rows' in entry ? entry.rows : entry) {
      const given = inputs.map(({ shape, dtype = 'float32' }, i) => input(`x${i}`, dtype as DType, shape))
      const built = build(...given)
      const outputs = (Array.isArray(built) ? built : [built]).map((tensor, i) => ({ name: `y${i}`, tensor }))
      const graph = emitGraph(outputs, given)
      const types = new Map(
        typedNodes(graph, {}).flatMap(typed =>
          typed.node.outputs.map((name, i) => [name, typed.outputs[i]!] as const),
        ),
      )
      for (const { name, dtype, shape } of graph.outputs)
        expect({ op, ...types.get(name) }).toEqual({ op, dtype, shape })
    }
})

test('a step is the body of a Loop', () => {
  const graph: OnnxGraph = { name: 'g', nodes: [], initializers: [], inputs: [], outputs: [] }
  const model: OnnxModel = { irVersion: 9, producer: '', opsets: [], graph }
  expect(() => stepCost(model)).toThrow('g: expected a Loop over steps, received none')
})

test.for(['wang/cnn', 'korssjoen/dense', 'bassas/mlp-3-dropout'])(
  'shapes of %s are those that ONNX Runtime tells',
  async name => {
    const { native, build } = architectureNamed(name)
    const model = build(native.input, native.classes)
    const program = compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize: 32 })
    const engine = await openEngine({ threads: 1 })
    try {
      const loaded = await engine.load(program.bytes, { profile: true })
      await engine.write({ ...initialState(program), ...noise(64, native.input, native.classes) })
      await loaded.run({ feeds: feedsOf(program, 0, 1, 0.001, 64), keep: program.keep })
      const [run] = await loaded.profile()
      const isKernel = ({ op }: { op: string }) => op === 'Pass' || op === 'Update'
      const nodes = run!.nodes.filter(timing => timing.loop !== undefined && !isKernel(timing))
      const told = new Map(nodes.map(timing => [timing.name, timing]))
      const same = stepNodes(decodeModel(program.bytes)).filter(
        ({ node }) => told.get(node.name!)?.op === node.op,
      )
      // ONNX Runtime moves transposes past other nodes: then those have the same extents in another order.
      const sorted = (types: readonly ValueType[]) =>
        types.map(({ dtype, shape }) => ({ dtype, shape: shape.toSorted((a, b) => a - b) }))
      expect(same.map(({ node, outputs }) => [node.name, sorted(outputs)])).toEqual(
        same.map(({ node }) => [node.name, sorted(told.get(node.name!)!.outputs)]),
      )
      // The others were fused, or put together with their neighbours.
      expect(same.length).toBeGreaterThan(0.7 * nodes.length)
    } finally {
      await engine.close()
    }
  },
)
