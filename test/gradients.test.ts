import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { emitGraph, modelOf } from '../src/compile/emit.ts'
import { type OpDefinition, type Tensor, topological } from '../src/graph/node.ts'
import { formOf } from '../src/graph/ops/conv-form.ts'
import {
  add,
  cast,
  equal,
  isFloat,
  max,
  min,
  mul,
  relu,
  step,
  stopGradient,
} from '../src/graph/ops/elementwise.ts'
import { ops } from '../src/graph/ops/index.ts'
import { maxPool } from '../src/graph/ops/pool.ts'
import { reduceMax, sumAll, topK } from '../src/graph/ops/reduce.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import { windowOf } from '../src/graph/ops/window.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import { type HostTensor, hostTensor, sizeOf } from '../src/util/host-tensor.ts'
import { key, normal } from '../src/util/random.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import type { Row } from './gradients.rows.ts'
import { gradientTable } from './gradients.table.ts'
import { convForms } from './gradients.windows.ts'
import { evaluateReference, isCovered, type Values, valuesOf } from './reference.ts'

/** Central differences in float64 err by about 1e-10 from their step and 1e-11 from rounding. */
const STEP = 1e-5
const DIFFERENCES = 1e-6
/** The same formula in another order, in float64. */
const FLOAT64 = 1e-11
/** ONNX Runtime in float32. */
const FLOAT32 = 1e-5

type FloatType = 'float32' | 'float64'

/**
 * A row's graph in a float dtype. `power` 2 squares the outputs, so that first derivatives are no constants.
 */
function graphOf(row: Row, dtype: FloatType, power: 1 | 2 = 1) {
  const inputs = row.inputs.map((sample, i) => input(`input_${i}`, sample.dtype ?? dtype, sample.shape))
  const built = row.build(...inputs)
  const outputs: readonly Tensor[] = Array.isArray(built) ? built : [built as Tensor]
  const floats = inputs.filter(({ dtype }) => isFloat(dtype))
  const raised = (x: Tensor) => (power === 2 ? mul(x, x) : x)
  const terms = outputs.filter(y => isFloat(y.dtype)).map((y, i) => weightedSum(raised(y), `output ${i}`))
  return {
    inputs,
    outputs,
    floats,
    loss: terms.reduce<Tensor | undefined>((a, b) => (a ? add(a, b) : b), undefined),
  }
}

/** sum x * weights, the weights random and fixed. */
function weightedSum(x: Tensor, name: string): Tensor {
  const weights = normal(key(1, 'cotangent', name), sizeOf(x.shape))
  return sumAll(mul(x, constant(hostTensor(x.dtype, x.shape, weights))))
}

/** The row's values as float32 tensors, and the same values for the reference. */
function feedsOf(row: Row) {
  const host: Record<string, HostTensor> = {}
  const reference: Record<string, Values> = {}
  for (const [i, { shape, values, dtype = 'float32' }] of row.inputs.entries()) {
    host[`input_${i}`] = hostTensor(dtype, shape, values)
    reference[`input_${i}`] = valuesOf(host[`input_${i}`]!)
  }
  return { host, reference }
}

/** The derivative of `loss` with respect to each value of an input, by central differences. */
function differences(loss: Tensor, at: Readonly<Record<string, Values>>, of: Tensor): Values {
  const name: string = of.node.attributes.name
  const { shape, data } = at[name]!
  const slope = (_x: number, i: number) => {
    const [above, below] = [STEP, -STEP].map(
      step =>
        evaluateReference([loss], { ...at, [name]: { shape, data: data.with(i, data[i]! + step) } })[0]!
          .data[0]!,
    )
    return (above! - below!) / (2 * STEP)
  }
  return { shape, data: data.map(slope) }
}

const entries = Object.entries(gradientTable)
const rowsOf = (entry: (typeof entries)[number][1]): readonly Row[] => ('rows' in entry ? entry.rows : entry)

test('every op has an entry in the table, and a reference or an expansion', () => {
  expect(Object.keys(gradientTable).sort()).toEqual([...ops.keys()].sort())
  expect([...ops.values()].filter(op => !isCovered(op.op, op.expand !== undefined))).toEqual([])
})

test('the convolutions of the table take every form, each that which its label says', () => {
  for (const [label, form] of convForms) expect(label.startsWith(form.replace('-', ' ')), label).toBe(true)
  expect(new Set(convForms.map(([, form]) => form)).size).toBe(5)
})

test('a few images of many channels are gathered: to transform such a kernel costs more than it saves', () => {
  const window = windowOf('table', [7, 7], [3, 3], [1, 1], 'same')
  expect(formOf([7, 7, 1, 512], 512, window).form).toBe('gather')
  expect(formOf([7, 7, 64, 64], 64, window).form).not.toBe('gather')
})

let engine: Engine
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
})
afterAll(() => engine.close())

/** The outputs by the lowering that prefers ONNX's own composite operators. */
async function evaluatePortable(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  feeds: Record<string, HostTensor>,
) {
  const named = outputs.map((tensor, i) => ({ name: `output_${i}`, tensor }))
  const graph = emitGraph(named, inputs, { portable: true })
  const program = await engine.load(encodeModel(modelOf(graph)))
  const results = await program.run({ feeds })
  await program.release()
  return { values: named.map(({ name }) => valuesOf(results[name]!)), ops: graph.nodes.map(node => node.op) }
}

describe.each(entries)('%s', (name, entry) => {
  const op = ops.get(name) as OpDefinition
  const rows = rowsOf(entry)

  test('says whether it has a gradient', () => {
    expect(rows.length).toBeGreaterThan(0)
    if ('none' in entry) expect(op.gradient).toEqual({ none: entry.none })
    else expect(op.gradient === 'expand' || typeof op.gradient === 'function').toBe(true)
  })

  test.each(rows)('$label', async row => {
    const { host, reference } = feedsOf(row)
    const differentiable = !('none' in entry) && !row.valuesOnly

    const in64 = graphOf(row, 'float64')
    expect(topological(in64.outputs).map(node => node.op)).toContain(op)
    const of = differentiable ? in64.floats : []
    const slopes = differentiable ? gradients(in64.loss!, of) : []
    const expected = evaluateReference(in64.outputs, reference)
    const exact = evaluateReference(slopes, reference)

    const wanted = [...in64.outputs, ...slopes]
    for (const [i, value] of evaluateReference(wanted, reference, { expand: true }).entries())
      expectClose(value, [...expected, ...exact][i]!, FLOAT64, `expansion, result ${i}`)
    for (const [i, slope] of exact.entries())
      expectClose(slope, differences(in64.loss!, reference, of[i]!), DIFFERENCES, `gradient of input ${i}`)

    // The lowering, of the op and of its gradient, against the reference in float64.
    const in32 = graphOf(row, 'float32')
    const outputs = [...in32.outputs, ...(differentiable ? gradients(in32.loss!, in32.floats) : [])]
    const results = await evaluate(outputs, host)
    for (const [i, value] of results.entries())
      expectClose(valuesOf(value), [...expected, ...exact][i]!, FLOAT32, `ONNX Runtime, result ${i}`)

    if (op.onnx && op.expand) {
      const portable = await evaluatePortable(in32.outputs, in32.inputs, host)
      const uses = topological(in32.outputs).filter(node => node.op === op).length
      expect(portable.ops.filter(other => /Conv|Pool|MatMul/.test(other))).toHaveLength(uses)
      for (const [i, value] of portable.values.entries())
        expectClose(value, expected[i]!, FLOAT32, `portable, output ${i}`)
    }

    if (!row.second) return
    const squared = graphOf(row, 'float64', 2)
    const again = gradients(squared.loss!, squared.floats)
      .map((slope, i) => weightedSum(slope, `gradient ${i}`))
      .reduce(add)
    for (const [i, tensor] of squared.floats.entries()) {
      const [slope] = evaluateReference(gradients(again, [tensor]), reference)
      expectClose(slope!, differences(again, reference, tensor), DIFFERENCES, `second derivative, input ${i}`)
    }
  })
})

/** The gradient of sum(y * [1, 2, 3, ...]) at `values`. */
async function slopeOf(build: (x: Tensor) => Tensor, shape: readonly number[], values: readonly number[]) {
  const x = input('x', 'float32', shape)
  const y = build(x)
  const weights = Array.from({ length: sizeOf(y.shape) }, (_, i) => i + 1)
  const loss = sumAll(mul(y, constant(hostTensor('float32', y.shape, weights))))
  const [slope] = await evaluate(gradients(loss, [x]), { x: hostTensor('float32', shape, values) })
  return [...(slope!.data as Float32Array)]
}

describe('ties', () => {
  test('of Max and Min go to the first operand', async () => {
    const twice = (op: typeof max) => (x: Tensor) => op(x, add(mul(x, 2), mul(x, -1)))
    // d/da is 1 and d/db, which is as much by the chain rule, is 0
    expect(await slopeOf(twice(max), [2], [3, -3])).toEqual([1, 2])
    expect(await slopeOf(twice(min), [2], [3, -3])).toEqual([1, 2])
    const a = input('a', 'float32', [1])
    const b = input('b', 'float32', [1])
    const equal = { a: hostTensor('float32', [1], [2]), b: hostTensor('float32', [1], [2]) }
    for (const op of [max, min]) {
      const both = await evaluate(gradients(sumAll(op(a, b)), [a, b]), equal)
      expect(both.map(({ data }) => data[0])).toEqual([1, 0])
    }
  })

  test('of MaxPool go to the first in reading order, also where windows overlap', async () => {
    const window = windowOf('test', [2, 2], [2, 2], [2, 2], 'valid')
    expect(await slopeOf(x => maxPool(x, window), [2, 2, 1, 1], [5, 5, 5, 5])).toEqual([1, 0, 0, 0])
    const overlapping = windowOf('test', [1, 4], [1, 3], [1, 1], 'valid')
    expect(await slopeOf(x => maxPool(x, overlapping), [1, 4, 1, 1], [1, 7, 7, 0])).toEqual([0, 3, 0, 0])
  })

  test('of ReduceMax are shared equally', async () => {
    expect(await slopeOf(x => reduceMax(x, [0]), [4], [2, 9, 9, 1])).toEqual([0, 0.5, 0.5, 0])
  })
})

test('relu has a slope of 0 at 0', async () => {
  expect(await slopeOf(relu, [3], [-1, 0, 1])).toEqual([0, 0, 3])
})

describe('gradients', () => {
  const x = input('x', 'float32', [2])
  const unrelated = input('unrelated', 'float32', [3, 2])

  test('are zeros where the loss does not depend on a tensor', async () => {
    const feeds = {
      x: hostTensor('float32', [2], [1, 2]),
      unrelated: hostTensor('float32', [3, 2], [1, 2, 3, 4, 5, 6]),
    }
    const [stopped, none] = await evaluate(gradients(sumAll(mul(stopGradient(x), 3)), [x, unrelated]), feeds)
    expect([...(stopped!.data as Float32Array)]).toEqual([0, 0])
    expect([...(none!.data as Float32Array)]).toEqual([0, 0, 0, 0, 0, 0])
  })

  test('are zeros through a comparison', async () => {
    expect(await slopeOf(y => mul(cast(equal(y, 2), 'float32'), 3), [2], [2, 5])).toEqual([0, 0])
  })

  test('add up over all uses of a tensor', async () => {
    const loss = sumAll(add(mul(x, x), mul(stopGradient(x), x)))
    const [slope] = await evaluate(gradients(loss, [x]), { x: hostTensor('float32', [2], [1, 5]) })
    expect([...(slope!.data as Float32Array)]).toEqual([3, 15])
  })

  test('of a tensor within the graph are those of its later uses', async () => {
    const middle = mul(x, 3)
    const [slope] = await evaluate(gradients(sumAll(mul(middle, middle)), [middle]), {
      x: hostTensor('float32', [2], [1, 5]),
    })
    expect([...(slope!.data as Float32Array)]).toEqual([6, 30])
  })

  test('walk graphs that are deeper than the call stack', () => {
    let deep = x
    for (let i = 0; i < 20000; i++) deep = add(deep, x)
    expect(gradients(sumAll(deep), [x])).toHaveLength(1)
  })

  test('of an impossible request say why', () => {
    expect(
      [
        errorOf(() => gradients(x, [x])),
        errorOf(() => gradients(sumAll(topK(x, 1)), [x])),
        errorOf(() => gradients(sumAll(mul(x, step(x))), [x])),
      ].join('\n'),
    ).toMatchInlineSnapshot(`
      "UsageError: gradients: expected a scalar loss, received shape [2]
      UsageError: gradients: no gradient flows through TopK: taken through a mask of the winners (see k-winners-take-all)
      UsageError: gradients: no gradient flows through Step: piecewise constant: 0 wherever it exists"
    `)
  })
})
