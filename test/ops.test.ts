import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { apply, type Tensor } from '../src/graph/node.ts'
import { batchInward, batchOutward } from '../src/graph/ops/batch-axis.ts'
import { conv } from '../src/graph/ops/conv.ts'
import * as elementwise from '../src/graph/ops/elementwise.ts'
import { gather, oneHot, randomMask } from '../src/graph/ops/gather.ts'
import { softmaxCrossEntropy } from '../src/graph/ops/loss.ts'
import { maxPool } from '../src/graph/ops/pool.ts'
import * as reduce from '../src/graph/ops/reduce.ts'
import * as shape from '../src/graph/ops/shape.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import { windowOf } from '../src/graph/ops/window.ts'
import { activate } from '../src/nn/activations.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import { evaluateReference, type Values, valuesOf } from './reference.ts'

/** The golden values have nine digits. */
const NINE_DIGITS = 2e-8
/** ONNX Runtime in float32. */
const FLOAT32 = 1e-5

interface Numbers {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

interface Golden {
  readonly name: string
  readonly op: string
  // biome-ignore lint/suspicious/noExplicitAny: attributes are ONNX's, each op's its own.
  readonly attrs: any
  readonly inputs: readonly Numbers[]
  readonly output?: Numbers
  readonly outputs?: readonly Numbers[]
  readonly cotangent?: Numbers
  readonly cotangents?: readonly Numbers[]
  readonly gradients: readonly Numbers[]
}

const golden: readonly Golden[] = JSON.parse(
  readFileSync(new URL('golden/ops.json', import.meta.url), 'utf8'),
).cases

type Build = (inputs: readonly Tensor[], attributes: Golden['attrs']) => Tensor | readonly Tensor[]

const unary =
  (op: (x: Tensor) => Tensor): Build =>
  ([x]) =>
    op(x!)
const binary =
  (op: (a: Tensor, b: Tensor) => Tensor): Build =>
  ([a, b]) =>
    op(a!, b!)
const reduction =
  (op: (x: Tensor, axes: readonly number[]) => Tensor): Build =>
  ([x], { axes, keepdims }) => {
    const y = op(x!, axes)
    return keepdims
      ? y
      : shape.reshape(
          y,
          y.shape.filter((_, axis) => !axes.includes(axis)),
        )
  }

/** How Fovea writes each operator of the golden file. */
const builds: Readonly<Record<string, Build>> = {
  Add: binary(elementwise.add),
  Sub: binary(elementwise.sub),
  Mul: binary(elementwise.mul),
  Div: binary(elementwise.div),
  Max: binary(elementwise.max),
  Min: binary(elementwise.min),
  Neg: unary(elementwise.neg),
  Exp: unary(elementwise.exp),
  Log: unary(elementwise.log),
  Sqrt: unary(elementwise.sqrt),
  Reciprocal: unary(elementwise.reciprocal),
  Abs: unary(elementwise.abs),
  Sin: unary(elementwise.sin),
  Cos: unary(elementwise.cos),
  Tanh: unary(elementwise.tanh),
  Sigmoid: unary(elementwise.sigmoid),
  Relu: unary(elementwise.relu),
  Erf: unary(elementwise.erf),
  Softplus: unary(elementwise.softplus),
  Softmax: unary(reduce.softmax),
  LogSoftmax: unary(reduce.logSoftmax),
  LeakyRelu: ([x], { alpha }) => elementwise.leakyRelu(x!, alpha),
  Elu: ([x], { alpha }) => elementwise.elu(x!, alpha),
  Gelu: ([x]) => activate(x!, 'gelu'),
  Pow: ([x], { exponent }) => elementwise.pow(x!, exponent),
  Clip: ([x], { min = -Infinity, max = Infinity }) => elementwise.clip(x!, min, max),
  MatMul: ([a, b], attributes) => reduce.matMul(a!, b!, attributes),
  ReduceSum: reduction(reduce.reduceSum),
  ReduceMean: reduction(reduce.reduceMean),
  ReduceMax: reduction(reduce.reduceMax),
  Reshape: ([x], attributes) => shape.reshape(x!, attributes.shape),
  Transpose: ([x], { perm }) => shape.transpose(x!, perm),
  Expand: ([x], attributes) => shape.expand(x!, attributes.shape),
  Concat: (inputs, { axis }) => shape.concat(inputs, axis),
  Split: ([x], { axis, sizes }) => shape.split(x!, axis, sizes),
  Slice: ([x], { starts, ends, axes, steps }) =>
    (axes as number[]).reduce((sliced, axis, i) => {
      const extent = sliced.shape.at(axis)!
      const from = (position: number) => Math.min(position < 0 ? position + extent : position, extent)
      const start = from(starts[i])
      return shape.slice(sliced, axis, start, Math.ceil((from(ends[i]) - start) / steps[i]), steps[i])
    }, x!),
  Pad: ([x], { pads, value }) =>
    shape.pad(x!, pads.slice(0, pads.length / 2), pads.slice(pads.length / 2), value),
  Gather: ([x], { indices }) => gather(x!, constant(hostTensor('int32', indices.shape, indices.data))),
}

/** Golden cases of what Fovea does not have. */
const absent: Readonly<Record<string, string>> = {
  'Where same shape': 'no Where: programs select by products with masks',
  'Where broadcast condition': 'no Where',
  'Where broadcast operands': 'no Where',
  'Gelu tanh': 'the exact form only, as in Keras by default',
  'Slice reversed': 'steps are positive',
  'Slice reversed with step': 'steps are positive',
}

test('the cases that are left out are those named', () => {
  const names = golden.map(({ name }) => name)
  expect(names).toEqual(expect.arrayContaining(Object.keys(absent)))
  expect(new Set(golden.filter(({ name }) => !absent[name]).map(({ op }) => op))).toEqual(
    new Set(Object.keys(builds)),
  )
})

describe('PyTorch', () => {
  test.each(golden.filter(({ name }) => !absent[name]))('$name', async row => {
    const toValues = ({ shape, data }: Numbers): Values => ({ shape, data: Float64Array.from(data) })
    const expected = [...(row.outputs ?? [row.output!]), ...row.gradients].map(toValues)

    const graphOf = (dtype: 'float32' | 'float64') => {
      const inputs = row.inputs.map((x, i) => input(`input_${i}`, dtype, x.shape))
      const built = builds[row.op]!(inputs, row.attrs)
      const outputs: readonly Tensor[] = Array.isArray(built) ? built : [built as Tensor]
      const cotangents = row.cotangents ?? [row.cotangent!]
      const loss = outputs
        .map((y, i) =>
          reduce.sumAll(
            elementwise.mul(y, constant(hostTensor(dtype, cotangents[i]!.shape, cotangents[i]!.data))),
          ),
        )
        .reduce(elementwise.add)
      return [...outputs, ...gradients(loss, inputs)]
    }

    const names = row.inputs.map((x, i) => [`input_${i}`, x] as const)
    const reference = evaluateReference(
      graphOf('float64'),
      Object.fromEntries(names.map(([name, x]) => [name, toValues(x)])),
    )
    const results = await evaluate(
      graphOf('float32'),
      Object.fromEntries(names.map(([name, x]) => [name, hostTensor('float32', x.shape, x.data)])),
    )
    for (const [i, value] of expected.entries()) {
      expectClose(reference[i]!, value, NINE_DIGITS, `reference, result ${i}`)
      expectClose(valuesOf(results[i]!), value, FLOAT32, `ONNX Runtime, result ${i}`)
    }
  })
})

test('messages', () => {
  const x = (...extents: number[]) => input('x', 'float32', extents)
  const whole = (...extents: number[]) => input('i', 'int32', extents)
  const window = (size: readonly [number, number], kernel: readonly [number, number]) =>
    windowOf('conv2d "conv1"', size, kernel, [1, 1], 'valid')
  const { add, mul } = elementwise
  const messages = [
    () => add(x(2, 3), x(2)),
    () => mul(x(2), whole(2)),
    () => elementwise.max(1, 2),
    () => elementwise.equal(x(2, 3), x(3, 3)),
    () => elementwise.less(x(2, 3), x(3, 3)),
    () => elementwise.equal(x(2), whole(2)),
    () => shape.reshape(x(2, 3), [4, 2]),
    () => shape.reshape(x(2, 3), [4, -1]),
    () => shape.reshape(x(2, 3), [-1, -1]),
    () => apply(shape.Transpose, [x(2, 3)], { perm: [0, 0] }),
    () => shape.transpose(x(2, 3), [1, 2]),
    () => shape.transpose(x(2, 3), [1, 0, 2]),
    () => shape.expand(x(2, 3), [2, 4]),
    () => shape.expand(x(2, 3), [3]),
    () => shape.concat([x(2, 3), x(3, 3)], 1),
    () => shape.concat([x(2, 3), x(2)], 0),
    () => shape.concat([x(2, 3), whole(2, 3)], 0),
    () => shape.concat([x(2, 3), x(2, 3)], 2),
    () => shape.split(x(2, 3), 1, [1, 1]),
    () => shape.split(x(2, 3), -3, [1, 1]),
    () => shape.slice(x(5), 0, 2, 4),
    () => shape.slice(x(5), 0, 1, 3, 2),
    () => shape.slice(x(5), 0, -1, 2),
    () => shape.slice(x(5), 1, 0, 2),
    () => shape.pad(x(5), [-1], [0]),
    () => reduce.reduceSum(x(2, 3), [2]),
    () => reduce.reduceMax(x(2, 3), [-3]),
    () => reduce.topK(x(2, 3), 4),
    () => reduce.topK(x(2, 3), 0),
    () => reduce.matMul(x(2, 3), x(2, 3)),
    () => reduce.matMul(x(2, 3), x(2, 3), { transA: true, transB: true }),
    () => reduce.matMul(x(3), x(3, 3)),
    () => reduce.matMul(x(2, 2, 3), x(3, 3, 2)),
    () => oneHot(whole(2, 1), 10),
    () => gather(x(3, 2), x(2)),
    () => randomMask(whole(), [3], 0.5),
    () => softmaxCrossEntropy(x(2, 3), x(2)),
    () => conv(x(5, 5, 2, 3), x(3, 3, 4, 8), undefined, window([5, 5], [3, 3])),
    () => conv(x(5, 5, 2, 3), x(3, 3, 2, 8), undefined, window([5, 5], [3, 3]), 2),
    () => conv(x(5, 5, 3), x(3, 3, 3, 8), undefined, window([5, 5], [3, 3])),
    () => window([2, 5], [3, 3]),
    () => batchInward(x(2, 3)),
    () => batchOutward(x(2, 3)),
    () => maxPool(x(5, 5, 3), window([5, 5], [3, 3])),
  ]
  expect(messages.map(errorOf).join('\n')).toMatchInlineSnapshot(`
    "UsageError: Add: shapes [2, 3] and [2] do not broadcast
    UsageError: Mul: expected tensors of one dtype, received float32 and int32
    UsageError: Max: expected at least one tensor
    UsageError: Equal: shapes [2, 3] and [3, 3] do not broadcast
    UsageError: Less: shapes [2, 3] and [3, 3] do not broadcast
    UsageError: Equal: expected tensors of one dtype, received float32 and int32
    UsageError: Reshape: [2, 3] has 6 values, [4, 2] has 8
    UsageError: Reshape: the values of [2, 3] cannot fill [4, -1]
    UsageError: Reshape: [2, 3] has 6 values, [6, 6] has 36
    UsageError: Transpose: [0, 0] is no permutation of the axes of [2, 3]
    UsageError: Transpose: [1, 2] is no permutation of the axes of [2, 3]
    UsageError: Transpose: [1, 0, 2] is no permutation of the axes of [2, 3]
    UsageError: Expand: shapes [2, 3] and [2, 4] do not broadcast
    UsageError: Expand: [2, 3] cannot be expanded to [3]
    UsageError: Concat: shapes [2, 3] and [3, 3] differ outside axis 1
    UsageError: Concat: shapes [2, 3] and [2] differ outside axis 0
    UsageError: Concat: expected tensors of one dtype, received float32 and int32
    UsageError: Concat: axis 2 is out of range for a tensor of rank 2
    UsageError: Split: sizes [1, 1] do not add up to 3, axis 1 of [2, 3]
    UsageError: Split: axis -3 is out of range for a tensor of rank 2
    UsageError: Slice: 4 values from 2 by 1 do not fit in 5, axis 0 of [5]
    UsageError: Slice: 3 values from 1 by 2 do not fit in 5, axis 0 of [5]
    UsageError: Slice: 2 values from -1 by 1 do not fit in 5, axis 0 of [5]
    UsageError: Slice: axis 1 is out of range for a tensor of rank 1
    UsageError: Pad: expected counts of at least 0, received [-1] and [0]
    UsageError: ReduceSum: axis 2 is out of range for a tensor of rank 2
    UsageError: ReduceMax: axis -3 is out of range for a tensor of rank 2
    UsageError: TopK: expected k between 1 and 3, received 4 (input [2, 3])
    UsageError: TopK: expected k between 1 and 3, received 0 (input [2, 3])
    UsageError: MatMul: [2, 3] and [2, 3] do not match
    UsageError: MatMul: [2, 3]' and [2, 3]' do not match
    UsageError: MatMul: expected a matrix, received [3]
    UsageError: MatMul: shapes [2] and [3] do not broadcast
    UsageError: oneHot: expected labels of shape [N], received [2, 1]
    UsageError: Gather: expected indices of int32 or int64, received float32
    UsageError: RandomMask: expected tensors of one dtype, received int32 and uint32
    UsageError: SoftmaxCrossEntropy: expected logits and targets of one shape [N, classes], received [2, 3] and [2]
    UsageError: conv: a kernel of shape [3, 3, 4, 8] expects 4 input channels, received 3 (input [H, W, N, C] [5, 5, 2, 3])
    UsageError: conv: a kernel of shape [3, 3, 2, 8] in 2 groups expects 4 input channels, received 3 (input [H, W, N, C] [5, 5, 2, 3])
    UsageError: conv: a kernel of shape [3, 3, 3, 8] expects 3 input channels, received undefined (input [H, W, N, C] [5, 5, 3])
    UsageError: conv2d "conv1": a window of 3 x 3 does not fit in 2 x 5 (padding "valid")
    UsageError: BatchInward: expected feature maps of 4 axes, received [2, 3]
    UsageError: BatchOutward: expected feature maps of 4 axes, received [2, 3]
    UsageError: pooling: expected feature maps of 4 axes, received [5, 5, 3]"
  `)
})

describe('values that are no finite numbers', () => {
  // Long enough for ONNX Runtime's vectorized loops, and for a remainder.
  const x = input('x', 'float32', [37])
  const of = async (y: Tensor, value: number) => {
    const feeds = { x: hostTensor('float32', x.shape, new Array<number>(37).fill(value)) }
    const [result] = await evaluate([y], feeds)
    return new Set(result!.data as Float32Array)
  }
  const slope = (op: (x: Tensor) => Tensor) => gradients(reduce.sumAll(op(x)), [x])[0]!

  // What a diverged run passes through: each must let it be seen.
  test.each<[string, Tensor]>([
    ['Step', elementwise.step(x)],
    ['Relu', elementwise.relu(x)],
    ['LeakyRelu', elementwise.leakyRelu(x, 0.1)],
    ['Elu', elementwise.elu(x, 1)],
    ['Clip', elementwise.clip(x, -1, 1)],
    ['Max', elementwise.max(x, 1)],
    ['Min', elementwise.min(1, x)],
    ['Sigmoid', elementwise.sigmoid(x)],
    ['Tanh', elementwise.tanh(x)],
    ['Softmax', reduce.softmax(x)],
    ['LogSoftmax', reduce.logSoftmax(x)],
    ['the gradient of Relu', slope(elementwise.relu)],
    ['the gradient of Abs', slope(elementwise.abs)],
    ['the gradient of Max', slope(y => elementwise.max(y, 1))],
  ])('NaN passes through %s', async (_name, y) => {
    expect(await of(y, Number.NaN)).toEqual(new Set([Number.NaN]))
  })

  test('NaN passes through MaxPool, wherever it stands in its window', async () => {
    const maps = input('maps', 'float32', [2, 2, 1, 4])
    const values = Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? Number.NaN : 1))
    const window = windowOf('test', [2, 2], [2, 2], [2, 2], 'valid')
    const [result] = await evaluate([maxPool(maps, window)], {
      maps: hostTensor('float32', maps.shape, values),
    })
    expect([...(result!.data as Float32Array)]).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN])
  })

  test('Step is 1 above 0 from the smallest normal number to infinity, and 0 elsewhere', async () => {
    for (const value of [1.2e-38, 1e-20, 1, 3e38, Infinity])
      expect(await of(elementwise.step(x), value)).toEqual(new Set([1]))
    for (const value of [0, -0, -1.2e-38, -1, -Infinity])
      expect(await of(elementwise.step(x), value)).toEqual(new Set([0]))
  })
})
