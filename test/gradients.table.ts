/**
 * One entry an op: small inputs on which its gradient and its lowering are checked (gradients.test.ts).
 * Inputs lie at least 1e-2 away from kinks and ties, so that central differences do not straddle them.
 */
import { apply, applyAll, type Tensor } from '../src/graph/node.ts'
import { scalarAttention } from '../src/graph/ops/attention.ts'
import { batchInward, batchOutward } from '../src/graph/ops/batch-axis.ts'
import { DotProductAttention, dotProductAttention } from '../src/graph/ops/dot-product-attention.ts'
import * as e from '../src/graph/ops/elementwise.ts'
import { FlattenedMatMul } from '../src/graph/ops/flattened.ts'
import { gather, oneHot, randomMask, randomUniform, ScatterAdd } from '../src/graph/ops/gather.ts'
import { softmaxCrossEntropy, sumOfMagnitudes, sumOfSquares } from '../src/graph/ops/loss.ts'
import { BatchNormalization, batchNormalization } from '../src/graph/ops/normalize.ts'
import * as r from '../src/graph/ops/reduce.ts'
import { gridSample } from '../src/graph/ops/resample.ts'
import * as s from '../src/graph/ops/shape.ts'
import { constant } from '../src/graph/ops/source.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import {
  awayFrom,
  distinct,
  type Entry,
  integers,
  normal,
  positive,
  type Row,
  row,
  type Sample,
  smooth,
} from './gradients.rows.ts'
import { windowEntries } from './gradients.windows.ts'

const pairs: readonly (readonly [string, readonly number[], readonly number[]])[] = [
  ['same shapes', [3, 4], [3, 4]],
  ['[3, 4] and [4]', [3, 4], [4]],
  ['[3, 1] and [2, 1, 4]', [3, 1], [2, 1, 4]],
  ['scalar and [2, 3]', [], [2, 3]],
]

/** A binary op over all ways to broadcast. */
const binary = (op: (a: Tensor, b: Tensor) => Tensor, a = normal, b = normal): Row[] =>
  pairs.map(([label, left, right]) => smooth(label, [a(...left), b(...right)], op))

const extreme = (op: (a: Tensor, b: Tensor) => Tensor): Row[] =>
  pairs.map(([label, left, right]) => row(label, [distinct(left), distinct(right, 0.025)], op))

const piecewise = (op: (x: Tensor) => Tensor, kinks: readonly number[] = [0]): Row[] => [
  row('', [awayFrom(kinks, [3, 4])], op),
]

const matMulRows: Row[] = [
  ...(
    [
      ['matrices', [2, 4], [4, 3]],
      ['matrices, scaled', [2, 4], [4, 3], 0.5],
      ['batches', [2, 2, 4], [2, 4, 3]],
      ['batches, scaled', [2, 2, 4], [2, 4, 3], -1.5],
      ['a batch and a matrix', [2, 2, 4], [4, 3]],
      ['a batch of few rows and a matrix, scaled', [3, 1, 4], [4, 3], 0.5],
      ['a matrix and a batch', [2, 4], [2, 4, 3]],
      ['batches that broadcast', [2, 1, 2, 4], [3, 4, 3]],
    ] as const
  ).flatMap(([label, left, right, scale]) =>
    [false, true].flatMap(transA =>
      [false, true].map(transB =>
        smooth(
          `${label}${transA ? ", a'" : ''}${transB ? ", b'" : ''}`,
          [normal(...turned(left, transA)), normal(...turned(right, transB))],
          (a, b) => r.matMul(a, b, { transA, transB, ...(scale === undefined ? {} : { scale }) }),
        ),
      ),
    ),
  ),
  smooth('a multiple, reshaped', [normal(2, 2, 4), normal(4, 3)], (a, b) =>
    r.matMul(s.reshape(e.mul(a, 0.5), [4, 4]), b, { scale: 3 }),
  ),
  smooth('the same again', [normal(2, 2, 4), normal(4, 3)], (a, b) =>
    e.add(r.matMul(a, b), r.matMul(a, b, { again: true })),
  ),
]

function turned(shape: readonly number[], isTurned: boolean): number[] {
  const matrix = shape.slice(-2)
  return [...shape.slice(0, -2), ...(isTurned ? matrix.reverse() : matrix)]
}

const source = 'a source has no inputs'
const comparison = 'a comparison is piecewise constant'
const rounded = (shape: readonly number[]): Sample => ({
  shape,
  values: Array.from(normal(...shape).values, Math.round),
})

/** Every op of `ops`. */
export const gradientTable: Readonly<Record<string, Entry>> = {
  Input: { none: source, rows: [row('', [normal(2, 3)], x => x)] },
  Constant: {
    none: source,
    rows: [row('', [], () => constant(hostTensor('float32', [2, 2], [1, -2, 0.5, 4])))],
  },
  Reshape: [smooth('', [normal(2, 6)], x => s.reshape(x, [3, -1, 2]))],
  Transpose: [
    smooth('matrix', [normal(2, 3)], x => s.transpose(x, [1, 0])),
    smooth('cycle of axes', [normal(2, 3, 4)], x => s.transpose(x, [2, 0, 1])),
    smooth('four axes', [normal(2, 3, 2, 3)], x => s.transpose(x, [2, 3, 0, 1])),
  ],
  Expand: [
    smooth('an axis', [normal(3, 1)], x => s.expand(x, [3, 4])),
    smooth('new axes', [normal(2, 1)], x => s.expand(x, [3, 2, 4])),
    smooth('a scalar', [normal()], x => s.expand(x, [2, 2])),
  ],
  Concat: [
    smooth('first axis', [normal(1, 3), normal(2, 3)], (a, b) => s.concat([a, b], 0)),
    smooth('last axis of three', [normal(2, 2, 1), normal(2, 2, 3), normal(2, 2, 2)], (...xs) =>
      s.concat(xs, -1),
    ),
    smooth('the same input twice', [normal(2, 2)], x => s.concat([x, x], 1)),
  ],
  Split: [
    smooth('all outputs', [normal(2, 6)], x => s.split(x, 1, [1, 2, 3])),
    smooth('unused outputs', [normal(6, 2)], x => s.split(x, 0, [1, 2, 3])[1]!),
  ],
  Slice: [
    smooth('plain', [normal(5, 3)], x => s.slice(x, 0, 1, 3)),
    smooth('by 2 from 1', [normal(2, 7)], x => s.slice(x, 1, 1, 3, 2)),
    smooth('by 3 with a remainder', [normal(8, 2)], x => s.slice(x, 0, 0, 3, 3)),
    smooth('by 3, middle axis', [normal(2, 6, 2)], x => s.slice(x, 1, 2, 2, 3)),
    smooth('one value by 2', [normal(4)], x => s.slice(x, 0, 3, 1, 2)),
  ],
  Pad: [
    smooth('zeros', [normal(2, 3)], x => s.pad(x, [1, 0], [0, 2])),
    smooth('another value', [normal(2, 2)], x => s.pad(x, [0, 1], [1, 1], -1.5)),
  ],
  Add: binary(e.add),
  Sub: binary(e.sub),
  Mul: binary(e.mul),
  Div: binary(e.div, normal, positive),
  Max: extreme(e.max),
  Min: extreme(e.min),
  Equal: {
    none: comparison,
    rows: [row('', [rounded([3, 4]), rounded([4])], (a, b) => e.equal(a, b))],
  },
  Less: { none: comparison, rows: [row('', [rounded([3, 4]), rounded([3, 1])], (a, b) => e.less(a, b))] },
  Neg: [smooth('', [normal(2, 3)], e.neg)],
  Exp: [smooth('', [normal(2, 3)], e.exp)],
  Log: [smooth('', [positive(2, 3)], e.log)],
  Sqrt: [smooth('', [positive(2, 3)], e.sqrt)],
  Reciprocal: [smooth('', [awayFrom([0], [2, 3], 0.4)], e.reciprocal)],
  Abs: piecewise(e.abs),
  Erf: [smooth('', [normal(2, 6)], e.erf)],
  Sin: [smooth('', [normal(2, 6)], e.sin)],
  Cos: [smooth('', [normal(2, 6)], e.cos)],
  Tanh: [smooth('', [normal(2, 6)], e.tanh)],
  Sigmoid: [smooth('', [normal(2, 6)], e.sigmoid)],
  Softplus: [smooth('', [normal(2, 6)], e.softplus)],
  Relu: piecewise(e.relu),
  Step: { none: 'piecewise constant: 0 wherever it exists', rows: piecewise(e.step) },
  StopGradient: { none: 'stops gradients on purpose', rows: [row('', [normal(3)], e.stopGradient)] },
  LeakyRelu: piecewise(x => e.leakyRelu(x, 0.1)),
  Elu: [...piecewise(x => e.elu(x, 1)), ...piecewise(x => e.elu(x, 0.3))],
  Clip: [
    ...piecewise(x => e.clip(x, -0.5, 0.75), [-0.5, 0.75]),
    ...piecewise(x => e.clip(x, -0.5, Infinity), [-0.5]),
    ...piecewise(x => e.clip(x, -Infinity, 0.5), [0.5]),
  ],
  Pow: [
    smooth('whole', [awayFrom([0], [2, 3])], x => e.pow(x, 3)),
    smooth('broken', [positive(2, 3)], x => e.pow(x, -0.75)),
  ],
  Cast: [
    smooth('to another float and back', [normal(2, 3)], x =>
      e.cast(e.cast(x, x.dtype === 'float64' ? 'float32' : 'float64'), x.dtype),
    ),
    row('from integers', [integers([3], [2, 0, -1]), normal(3)], (i, x) => e.mul(e.cast(i, x.dtype), x)),
  ],
  ReduceSum: [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]].map(axes =>
    smooth(`axes ${axes}`, [normal(2, 3, 4)], x => r.reduceSum(x, axes)),
  ),
  ReduceMax: [[0], [1], [0, 2], [0, 1, 2]].map(axes =>
    row(`axes ${axes}`, [distinct([2, 3, 4])], x => r.reduceMax(x, axes)),
  ),
  ReduceSumSquare: [smooth('', [normal(2, 3)], sumOfSquares)],
  ReduceL1: [row('', [awayFrom([0], [2, 3])], sumOfMagnitudes)],
  ArgMax: { none: 'an index is piecewise constant', rows: [row('', [distinct([3, 4])], r.argMax)] },
  TopK: {
    none: 'taken through a mask of the winners (see k-winners-take-all)',
    rows: [row('values and indices', [distinct([3, 5])], x => applyAll(r.TopK, [x], { k: 2 }))],
  },
  Softmax: [smooth('', [normal(3, 4)], r.softmax), smooth('maps', [normal(1, 2, 2, 3)], r.softmax)],
  LogSoftmax: [smooth('', [normal(3, 4)], r.logSoftmax)],
  MatMul: matMulRows,
  FlattenedMatMul: [
    smooth('maps of three rows', [normal(3, 2, 4, 2), normal(12, 5)], (maps, w) =>
      apply(FlattenedMatMul, [s.reshape(batchOutward(maps), [4, 12]), w]),
    ),
  ],
  Gather: [
    smooth('repeats', [normal(4, 3), integers([5], [3, 0, 0, 2, 3])], gather),
    smooth('indices of two axes', [normal(4, 2), integers([2, 3], [3, 1, 1, 0, 3, 3])], gather),
    smooth('a single row', [normal(3, 2), integers([], [1])], gather),
  ],
  ScatterAdd: [
    smooth('repeats', [integers([4], [2, 0, 2, 2]), normal(4, 3)], (i, x) =>
      apply(ScatterAdd, [i, x], { rows: 4 }),
    ),
    smooth('indices of two axes', [integers([2, 2], [1, 1, 0, 1]), normal(2, 2, 3)], (i, x) =>
      apply(ScatterAdd, [i, x], { rows: 3 }),
    ),
  ],
  RandomMask: {
    none: 'random numbers depend on no input',
    rows: [0x9e3779b9, 0, 7].map(word =>
      row(`key ${word}`, [{ shape: [], values: [word], dtype: 'uint32' }], k => randomMask(k, [5, 40], 0.7)),
    ),
  },
  RandomUniform: {
    none: 'random numbers depend on no input',
    rows: [0x9e3779b9, 0, 7].map(word =>
      row(`key ${word}`, [{ shape: [], values: [word], dtype: 'uint32' }], k => randomUniform(k, [5, 40])),
    ),
  },
  GridSample: {
    none: 'the images of the data set are not differentiated',
    rows: [row('some places outside', [normal(2, 3, 4, 5), normal(2, 3, 2, 2)], gridSample)],
  },
  ...windowEntries,
  BatchInward: [smooth('', [normal(2, 3, 2, 3)], batchInward)],
  BatchOutward: [smooth('', [normal(2, 3, 2, 3)], batchOutward)],
  BatchNormalization: [
    smooth(
      'vectors',
      [normal(5, 3), positive(3), normal(3)],
      (x, g, b) => batchNormalization(x, g, b, 1e-3).y,
    ),
    smooth(
      'maps',
      [normal(2, 2, 3, 2), positive(2), normal(2)],
      (x, g, b) => batchNormalization(x, g, b, 1e-5).y,
    ),
    {
      ...row('statistics', [normal(5, 3), positive(3), normal(3)], (x, g, b) =>
        applyAll(BatchNormalization, [x, g, b], { epsilon: 1e-3 }),
      ),
      valuesOnly: true,
    },
  ],
  SoftmaxCrossEntropy: [
    smooth('labels', [normal(3, 4), integers([3], [2, 0, 3])], (x, labels) =>
      softmaxCrossEntropy(x, oneHot(labels, 4, x.dtype === 'float64' ? 'float64' : 'float32')),
    ),
    // The gradient presumes targets that sum to 1: these do, for any x.
    smooth('targets of a graph', [normal(3, 4), normal(3, 4)], (x, t) =>
      softmaxCrossEntropy(x, r.softmax(t)),
    ),
  ],
  DotProductAttention: [
    smooth('', [normal(3, 2), normal(4, 2), normal(4, 3)], (q, k, v) => dotProductAttention(q, k, v)),
    smooth(
      'batches and heads, scaled',
      [normal(2, 2, 3, 4), normal(2, 2, 3, 4), normal(2, 2, 3, 2)],
      (q, k, v) => dotProductAttention(q, k, v, 0.5),
    ),
    ...[1, 0.5].map(scale =>
      smooth(
        `weights made again, scaled by ${scale}`,
        [normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 2)],
        (q, k, v) => apply(DotProductAttention, [q, k, v], { scale, mostKept: 29 }),
      ),
    ),
  ],
  ScalarAttention: [
    // Three blocks: of two rows, two rows and one row.
    smooth('exact', [normal(2, 5), normal()], (x, scale) =>
      scalarAttention(x, scale, { intervals: 0, scoresAtOnce: 20 }),
    ),
    row('on a grid', [normal(2, 5), normal()], (x, scale) =>
      scalarAttention(x, scale, { intervals: 1024, scoresAtOnce: 4000 }),
    ),
  ],
}
