/** The rows of the ops that slide windows: convolution in its five forms, grouped convolution, pooling. */
import { apply } from '../src/graph/node.ts'
import * as c from '../src/graph/ops/conv.ts'
import { formOf } from '../src/graph/ops/conv-form.ts'
import { averagePool, maxPool } from '../src/graph/ops/pool.ts'
import { type Pair, type WindowAttributes, windowCounts, windowOf } from '../src/graph/ops/window.ts'
import { distinct, type Entry, normal, type Row, row, type Sample, smooth } from './gradients.rows.ts'

interface ConvCase {
  readonly size: Pair
  readonly kernel: Pair
  readonly channels: number
  readonly strides?: Pair
  readonly padding?: 'same' | 'valid'
  readonly dilation?: Pair
  readonly groups?: number
  readonly filters?: number
}

const IMAGES = 2
const FILTERS = 3

const windowFor = ({ size, kernel, strides = [1, 1], padding = 'valid', dilation = [1, 1] }: ConvCase) =>
  windowOf('table', size, kernel, strides, padding, dilation)

/** The five forms, each by the name that its labels begin with, and their geometries. */
const convCases: Readonly<Record<string, ConvCase>> = {
  pointwise: { size: [2, 3], kernel: [1, 1], channels: 5 },
  'pointwise of one channel': { size: [2, 3], kernel: [1, 1], channels: 1 },
  'gather 1x1 with strides': { size: [4, 3], kernel: [1, 1], channels: 5, strides: [2, 2] },
  'few channels valid': { size: [4, 4], kernel: [3, 3], channels: 1 },
  'few channels same': { size: [3, 4], kernel: [3, 2], channels: 2, padding: 'same' },
  'few channels strides 2 same': {
    size: [5, 4],
    kernel: [3, 3],
    channels: 2,
    strides: [2, 2],
    padding: 'same',
  },
  'few channels dilation 2': { size: [5, 5], kernel: [2, 2], channels: 3, dilation: [2, 2] },
  'few channels dilation 2 same': {
    size: [4, 5],
    kernel: [3, 3],
    channels: 2,
    dilation: [2, 2],
    padding: 'same',
  },
  'gather valid': { size: [4, 3], kernel: [3, 1], channels: 5 },
  'gather same': { size: [3, 3], kernel: [2, 1], channels: 5, padding: 'same' },
  'gather same, kernel beyond the map': { size: [1, 3], kernel: [3, 1], channels: 5, padding: 'same' },
  'dft same': { size: [4, 4], kernel: [5, 5], channels: 5, padding: 'same' },
  'dft same, an odd and an even cycle': { size: [4, 3], kernel: [3, 5], channels: 6, padding: 'same' },
  'dft same, even kernel': { size: [5, 4], kernel: [5, 4], channels: 5, padding: 'same' },
  'dft same, kernel beyond the map': { size: [4, 2], kernel: [5, 3], channels: 7, padding: 'same' },
  'winograd same, two tiles': { size: [3, 6], kernel: [3, 3], channels: 5, padding: 'same' },
  'winograd valid, rest of a tile': { size: [5, 7], kernel: [3, 3], channels: 5 },
  'winograd 5x5 valid': { size: [6, 6], kernel: [5, 5], channels: 5 },
  'winograd 3x4 same': { size: [4, 3], kernel: [3, 4], channels: 5, padding: 'same' },
  'winograd same, one tile': { size: [2, 3], kernel: [3, 2], channels: 5, padding: 'same' },
  'gather strides 2 same': { size: [4, 5], kernel: [3, 3], channels: 5, strides: [2, 2], padding: 'same' },
  'gather strides 2 by 1 valid': { size: [5, 3], kernel: [3, 2], channels: 5, strides: [2, 1] },
  'gather strides beyond the kernel': { size: [7, 5], kernel: [2, 1], channels: 5, strides: [3, 2] },
  'gather dilation 2 same': { size: [4, 4], kernel: [3, 2], channels: 5, dilation: [2, 2], padding: 'same' },
  'gather strides 2 dilation 2': {
    size: [7, 6],
    kernel: [2, 3],
    channels: 5,
    strides: [2, 2],
    dilation: [2, 2],
    padding: 'same',
  },
  'gather strides 2 dilation 3': {
    size: [7, 8],
    kernel: [2, 2],
    channels: 5,
    strides: [2, 2],
    dilation: [3, 3],
  },
}

const convRows = Object.entries(convCases)

/** The form that each case takes, by its label. */
export const convForms = convRows.map(
  ([label, one]) =>
    [label, formOf([...one.size, IMAGES, one.channels], FILTERS, windowFor(one)).form] as const,
)

const mapsOf = ({ size, channels }: ConvCase) => normal(...size, IMAGES, channels)
const kernelOf = ({ kernel, channels, groups = 1, filters = FILTERS }: ConvCase) =>
  normal(...kernel, channels / groups, filters)
const outputOf = (window: WindowAttributes, size: Pair): Sample =>
  normal(...windowCounts(size, window), IMAGES, FILTERS)

/** A row for each geometry of an op that takes one or two of maps, kernel and output's cotangent. */
const convGradientRows = (
  inputs: (one: ConvCase, dy: Sample) => readonly Sample[],
  build: (one: ConvCase, window: WindowAttributes) => Row['build'],
): Row[] =>
  convRows.map(([label, one]) => {
    const window = windowFor(one)
    return smooth(label, inputs(one, outputOf(window, one.size)), build(one, window))
  })

const groupedCases: Readonly<Record<string, ConvCase>> = {
  'two groups': { size: [3, 4], kernel: [2, 3], channels: 4, groups: 2, filters: 6, padding: 'same' },
  'two groups of many channels, strides 2': {
    size: [4, 5],
    kernel: [3, 3],
    channels: 10,
    groups: 2,
    filters: 4,
    strides: [2, 2],
  },
  depthwise: { size: [4, 3], kernel: [3, 2], channels: 3, groups: 3, filters: 3, padding: 'same' },
  'depthwise to two, strides 2': {
    size: [5, 4],
    kernel: [3, 3],
    channels: 3,
    groups: 3,
    filters: 6,
    strides: [2, 2],
    padding: 'same',
  },
  'depthwise to two, strides 2, many outputs': {
    size: [7, 6],
    kernel: [3, 2],
    channels: 2,
    groups: 2,
    filters: 4,
    strides: [2, 1],
    padding: 'same',
  },
  'depthwise on one cell': {
    size: [1, 1],
    kernel: [3, 3],
    channels: 2,
    groups: 2,
    filters: 2,
    padding: 'same',
  },
  'depthwise on two by two': {
    size: [2, 2],
    kernel: [3, 3],
    channels: 2,
    groups: 2,
    filters: 2,
    padding: 'same',
  },
  'depthwise dilation 2': {
    size: [5, 6],
    kernel: [3, 3],
    channels: 2,
    groups: 2,
    filters: 2,
    dilation: [2, 2],
  },
}

const poolCases: Readonly<Record<string, ConvCase>> = {
  '2x2': { size: [4, 4], kernel: [2, 2], strides: [2, 2], channels: 2 },
  '2x2, a remainder': { size: [5, 3], kernel: [2, 2], strides: [2, 2], channels: 2 },
  '2x2 same': { size: [5, 3], kernel: [2, 2], strides: [2, 2], channels: 2, padding: 'same' },
  '3x3 same': { size: [4, 5], kernel: [3, 3], strides: [3, 3], channels: 1, padding: 'same' },
  'overlapping 3x3 by 2': { size: [5, 6], kernel: [3, 3], strides: [2, 2], channels: 2 },
  'overlapping 3x3 by 2 same': {
    size: [5, 6],
    kernel: [3, 3],
    strides: [2, 2],
    channels: 2,
    padding: 'same',
  },
  'overlapping 2x3 by 1': { size: [3, 4], kernel: [2, 3], strides: [1, 1], channels: 2, padding: 'same' },
  'strides beyond the window': { size: [5, 5], kernel: [1, 2], strides: [2, 3], channels: 2 },
}

/** Below 0, so that zeros of a padding would win a maximum. */
const poolRows = (op: typeof maxPool): Row[] =>
  Object.entries(poolCases).map(([label, one]) =>
    row(label, [distinct([...one.size, IMAGES, one.channels], -10)], x => op(x, windowFor(one))),
  )

export const windowEntries: Readonly<Record<string, Entry>> = {
  Conv: [
    ...convRows.flatMap(([label, one]) => {
      const window = windowFor(one)
      return [
        smooth(`${label}, bias`, [mapsOf(one), kernelOf(one), normal(FILTERS)], (x, w, b) =>
          c.conv(x, w, b, window),
        ),
        row(label, [mapsOf(one), kernelOf(one)], (x, w) => c.conv(x, w, undefined, window)),
      ]
    }),
    smooth(
      'one input under windows that differ in dilation',
      [normal(4, 4, 2, 5), normal(2, 2, 5, 2), normal(2, 2, 5, 2)],
      (x, v, w) => {
        const plain = windowOf('table', [4, 4], [2, 2], [1, 1], 'valid')
        return [c.conv(x, v, undefined, plain), c.conv(x, w, undefined, { ...plain, dilation: [2, 2] })]
      },
    ),
  ],
  ConvInputGradient: convGradientRows(
    (one, dy) => [dy, kernelOf(one)],
    (one, window) => (dy, w) => apply(c.ConvInputGradient, [dy, w], { ...window, size: one.size }),
  ),
  ConvKernelGradient: convGradientRows(
    (one, dy) => [mapsOf(one), dy],
    (_one, window) => (x, dy) => apply(c.ConvKernelGradient, [x, dy], window),
  ),
  ConvBiasGradient: convGradientRows(
    (one, dy) => [mapsOf(one), dy],
    (_one, window) => (x, dy) => apply(c.ConvBiasGradient, [x, dy], window),
  ),
  GroupedConv: Object.entries(groupedCases).map(([label, one]) =>
    smooth(label, [mapsOf(one), kernelOf(one)], (x, w) =>
      c.conv(x, w, undefined, windowFor(one), one.groups),
    ),
  ),
  MaxPool: poolRows(maxPool),
  AveragePool: poolRows(averagePool).map(one => ({ ...one, second: true })),
}
