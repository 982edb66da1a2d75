/**
 * A reference interpreter of the symbolic graph: one plain loop an op, in float64 whatever the dtypes say. It
 * shares neither rules nor lowerings with `src/`, and it is slow.
 */
import { expansionOf, type Node, type Tensor, topological } from '../src/graph/node.ts'
import { Constant, Input } from '../src/graph/ops/source.ts'
import type { Pair, WindowAttributes } from '../src/graph/ops/window.ts'
import { type HostTensor, type Shape, showShape, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { drawn, sampled } from './reference.images.ts'

/** A tensor's values, row-major. Booleans are 0 and 1. */
export interface Values {
  readonly shape: Shape
  readonly data: Float64Array
}

type Reference = (inputs: readonly Values[], node: Node) => Values | readonly Values[]

/** The tensor of `shape` with `value(index)` at each index. */
function tabulate(shape: Shape, value: (index: readonly number[]) => number): Values {
  const data = new Float64Array(sizeOf(shape))
  const index = shape.map(() => 0)
  for (let i = 0; i < data.length; i++) {
    data[i] = value(index)
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis]! += 1
      if (index[axis]! < shape[axis]!) break
      index[axis] = 0
    }
  }
  return { shape, data }
}

/** The value at an index, by NumPy's broadcasting: missing axes and those of extent 1 have one position. */
function at({ shape, data }: Values, index: readonly number[]): number {
  const skip = index.length - shape.length
  let offset = 0
  for (const [axis, extent] of shape.entries())
    offset = offset * extent + (extent === 1 ? 0 : index[axis + skip]!)
  return data[offset]!
}

const range = (count: number) => Array.from({ length: count }, (_, i) => i)
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0)
const shapeOf = (node: Node, output = 0): Shape => node.outputs[output]!.shape

const unary =
  (f: (x: number, attributes: Node['attributes']) => number): Reference =>
  ([x], { attributes }) => ({ shape: x!.shape, data: x!.data.map(value => f(value, attributes)) })

const binary =
  (f: (a: number, b: number) => number): Reference =>
  ([a, b], node) =>
    tabulate(shapeOf(node), index => f(at(a!, index), at(b!, index)))

/** Combines the values that the reduced axes hold at each kept index. */
const reduction =
  (combine: (values: readonly number[]) => number): Reference =>
  ([x], node) => {
    const axes: readonly number[] = node.attributes.axes
    const reduced = x!.shape.map((extent, axis) => (axes.includes(axis) ? extent : 1))
    return tabulate(shapeOf(node), index => {
      const values: number[] = []
      tabulate(reduced, offset => {
        const value = at(
          x!,
          index.map((i, axis) => i + offset[axis]!),
        )
        values.push(value)
        return value
      })
      return combine(values)
    })
  }

/** Applies a function of each row along the last axis. */
const rowwise =
  (f: (row: readonly number[]) => readonly number[]): Reference =>
  ([x]) => {
    const rows = rowsOf(x!)
    return { shape: x!.shape, data: Float64Array.from(rows.flatMap(row => f(row))) }
  }

function rowsOf({ shape, data }: Values): number[][] {
  const width = shape.at(-1)!
  return range(data.length / width).map(row => Array.from(data.subarray(row * width, (row + 1) * width)))
}

function softmaxOf(row: readonly number[]): number[] {
  const largest = Math.max(...row)
  const powers = row.map(x => Math.exp(x - largest))
  return powers.map(power => power / sum(powers))
}

function logSoftmaxOf(row: readonly number[]): number[] {
  const largest = Math.max(...row)
  const total = Math.log(sum(row.map(x => Math.exp(x - largest))))
  return row.map(x => x - largest - total)
}

/** erf x = 2 / sqrt(pi) e^(-x^2) sum_n 2^n x^(2n+1) / (1 3 5 ... (2n+1)): no cancellation. */
function erfOf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x)
  let term = x
  let total = 0
  for (let n = 1; Math.abs(term) > 1e-18; n++) {
    total += term
    term *= (2 * x * x) / (2 * n + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total
}

/** Calls `visit` for each output cell o, tap t and input cell i = o s + t d - p that lies in the map. */
function eachTap(
  size: Pair,
  counts: Pair,
  { kernel, strides, dilation, before }: WindowAttributes,
  visit: (o: Pair, t: Pair, i: Pair) => void,
): void {
  tabulate([...counts, ...kernel], ([oh, ow, th, tw]) => {
    const ih = oh! * strides[0] + th! * dilation[0] - before[0]
    const iw = ow! * strides[1] + tw! * dilation[1] - before[1]
    if (ih >= 0 && iw >= 0 && ih < size[0] && iw < size[1]) visit([oh!, ow!], [th!, tw!], [ih, iw])
    return 0
  })
}

/** The triples (x cell, kernel cell, y cell) of offsets that a convolution multiplies. */
function eachProduct(
  x: Shape,
  w: Shape,
  y: Shape,
  window: WindowAttributes,
  groups: number,
  visit: (x: number, w: number, y: number) => void,
): void {
  const [h, width, images, channels] = x as readonly [number, number, number, number]
  const [rows, columns, , filters] = y as readonly [number, number, number, number]
  const [, kernelWidth, perGroup] = w as readonly [number, number, number, number]
  eachTap([h, width], [rows, columns], window, (o, t, i) => {
    for (let n = 0; n < images; n++)
      for (let k = 0; k < filters; k++) {
        const group = Math.floor(k / (filters / groups))
        for (let c = 0; c < perGroup; c++)
          visit(
            ((i[0] * width + i[1]) * images + n) * channels + group * perGroup + c,
            ((t[0] * kernelWidth + t[1]) * perGroup + c) * filters + k,
            ((o[0] * columns + o[1]) * images + n) * filters + k,
          )
      }
  })
}

const convolution: Reference = ([x, w, b], node) => {
  const y = tabulate(shapeOf(node), index => (b ? b.data[index[3]!]! : 0))
  eachProduct(x!.shape, w!.shape, y.shape, node.attributes, node.attributes.groups ?? 1, (i, j, k) => {
    y.data[k]! += x!.data[i]! * w!.data[j]!
  })
  return y
}

const pooling =
  (combine: (values: readonly number[]) => number): Reference =>
  ([x], node) => {
    const [h, w] = x!.shape as unknown as Pair
    const shape = shapeOf(node) as readonly [number, number, number, number]
    const cells = new Map<string, Pair[]>()
    eachTap([h, w], [shape[0], shape[1]], node.attributes, (o, _t, i) => {
      cells.set(o.join(), [...(cells.get(o.join()) ?? []), i])
    })
    return tabulate(shape, ([oh, ow, n, c]) =>
      combine(cells.get(`${oh},${ow}`)!.map(([i, j]) => at(x!, [i, j, n!, c!]))),
    )
  }

const batchNormalization: Reference = ([x, gamma, beta], node) => {
  const [rows, channels] = x!.shape as readonly [number, number]
  const columns = range(channels).map(c => range(rows).map(r => at(x!, [r, c])))
  const means = columns.map(column => sum(column) / rows)
  const variances = columns.map((column, c) => sum(column.map(value => (value - means[c]!) ** 2)) / rows)
  const y = tabulate(x!.shape, ([r, c]) => {
    const standard = (at(x!, [r!, c!]) - means[c!]!) / Math.sqrt(variances[c!]! + node.attributes.epsilon)
    return gamma!.data[c!]! * standard + beta!.data[c!]!
  })
  const row = (values: readonly number[]) => ({ shape: [1, channels], data: Float64Array.from(values) })
  return [y, row(means), row(variances)]
}

/** Two rounds of multiply and xor-shift of (mixed element index XOR key), compared with a share of 2^32. */
function castTo(dtype: string, x: number): number {
  if (dtype === 'bool') return x === 0 ? 0 : 1
  return dtype.startsWith('float') ? x : Math.trunc(x)
}

/** What each op computes. A composite may be left out: it is then what its expansion computes. */
export const references: Readonly<Record<string, Reference>> = {
  Constant: (_inputs, node) => valuesOf(node.attributes.value),
  Reshape: ([x], node) => ({ shape: shapeOf(node), data: x!.data }),
  Transpose: ([x], node) =>
    tabulate(shapeOf(node), index => {
      const source: number[] = []
      for (const [i, axis] of (node.attributes.perm as readonly number[]).entries()) source[axis] = index[i]!
      return at(x!, source)
    }),
  Expand: ([x], node) => tabulate(shapeOf(node), index => at(x!, index)),
  Concat: (inputs, node) => {
    const { axis } = node.attributes
    const sources = inputs.flatMap(input => range(input.shape[axis]!).map(position => ({ input, position })))
    return tabulate(shapeOf(node), index => {
      const { input, position } = sources[index[axis]!]!
      return at(input, index.with(axis, position))
    })
  },
  Split: ([x], node) => {
    const { axis, sizes } = node.attributes
    return node.outputs.map((_, i) => {
      const start = sum(sizes.slice(0, i))
      return tabulate(shapeOf(node, i), index => at(x!, index.with(axis, start + index[axis]!)))
    })
  },
  Slice: ([x], node) => {
    const { axis, start, step } = node.attributes
    return tabulate(shapeOf(node), index => at(x!, index.with(axis, start + step * index[axis]!)))
  },
  Pad: ([x], node) => {
    const { before, value } = node.attributes
    return tabulate(shapeOf(node), index => {
      const source = index.map((i, axis) => i - before[axis])
      return source.every((i, axis) => i >= 0 && i < x!.shape[axis]!) ? at(x!, source) : value
    })
  },
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b) => a / b),
  Max: binary((a, b) => Math.max(a, b)),
  Min: binary((a, b) => Math.min(a, b)),
  Equal: binary((a, b) => Number(a === b)),
  Less: binary((a, b) => Number(a < b)),
  Neg: unary(x => -x),
  Exp: unary(x => Math.exp(x)),
  Log: unary(x => Math.log(x)),
  Sqrt: unary(x => Math.sqrt(x)),
  Reciprocal: unary(x => 1 / x),
  Abs: unary(x => Math.abs(x)),
  Erf: unary(erfOf),
  Sin: unary(x => Math.sin(x)),
  Cos: unary(x => Math.cos(x)),
  Tanh: unary(x => Math.tanh(x)),
  Sigmoid: unary(x => 1 / (1 + Math.exp(-x))),
  Softplus: unary(x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))),
  Relu: unary(x => Math.max(x, 0)),
  Step: unary(x => Number(x > 0)),
  StopGradient: unary(x => x),
  LeakyRelu: unary((x, { alpha }) => (x > 0 ? x : alpha * x)),
  Elu: unary((x, { alpha }) => (x > 0 ? x : alpha * Math.expm1(x))),
  Clip: unary((x, { least, most }) => Math.min(Math.max(x, least), most)),
  Pow: unary((x, { exponent }) => x ** exponent),
  Cast: unary((x, { to }) => castTo(to, x)),
  ReduceSum: reduction(sum),
  ReduceMax: reduction(values => Math.max(...values)),
  ReduceSumSquare: ([x]) => ({ shape: [], data: Float64Array.of(sum([...x!.data].map(v => v * v))) }),
  ReduceL1: ([x]) => ({ shape: [], data: Float64Array.of(sum([...x!.data].map(Math.abs))) }),
  Softmax: rowwise(softmaxOf),
  LogSoftmax: rowwise(logSoftmaxOf),
  ArgMax: ([x], node) => ({
    shape: shapeOf(node),
    data: Float64Array.from(rowsOf(x!), row => row.indexOf(Math.max(...row))),
  }),
  TopK: ([x], node) => {
    const winners = rowsOf(x!).map(row =>
      range(row.length)
        .sort((i, j) => row[j]! - row[i]! || i - j)
        .slice(0, node.attributes.k)
        .map(i => ({ value: row[i]!, i })),
    )
    return [
      { shape: shapeOf(node), data: Float64Array.from(winners.flat(), winner => winner.value) },
      { shape: shapeOf(node), data: Float64Array.from(winners.flat(), winner => winner.i) },
    ]
  },
  MatMul: ([a, b], node) => {
    const { transA, transB, scale } = node.attributes
    const inner = a!.shape.at(transA ? -2 : -1)!
    return tabulate(shapeOf(node), index => {
      const batch = index.slice(0, -2)
      const [i, j] = index.slice(-2) as [number, number]
      const terms = range(inner).map(
        k =>
          at(a!, [...batch, ...(transA ? [k, i] : [i, k])]) *
          at(b!, [...batch, ...(transB ? [j, k] : [k, j])]),
      )
      return scale * sum(terms)
    })
  },
  Gather: ([x, indices], node) => {
    const rank = indices!.shape.length
    return tabulate(shapeOf(node), index =>
      at(x!, [at(indices!, index.slice(0, rank)), ...index.slice(rank)]),
    )
  },
  ScatterAdd: ([indices, x], node) => {
    const y = tabulate(shapeOf(node), () => 0)
    const width = x!.data.length / indices!.data.length
    for (const [i, value] of x!.data.entries())
      y.data[indices!.data[Math.floor(i / width)]! * width + (i % width)]! += value
    return y
  },
  RandomMask: ([key], { attributes: { shape, probability } }) =>
    drawn(key!, shape, bits => (bits < Math.round(probability * 2 ** 32) ? 1 : 0)),
  RandomUniform: ([key], { attributes: { shape } }) => drawn(key!, shape, bits => (bits >>> 8) / 2 ** 24),
  GridSample: ([x, grid]) => sampled(x!, grid!),
  Conv: convolution,
  GroupedConv: convolution,
  ConvInputGradient: ([dy, w], node) => {
    const dx = tabulate(shapeOf(node), () => 0)
    eachProduct(dx.shape, w!.shape, dy!.shape, node.attributes, 1, (i, j, k) => {
      dx.data[i]! += dy!.data[k]! * w!.data[j]!
    })
    return dx
  },
  ConvKernelGradient: ([x, dy], node) => {
    const dw = tabulate(shapeOf(node), () => 0)
    eachProduct(x!.shape, dw.shape, dy!.shape, node.attributes, 1, (i, j, k) => {
      dw.data[j]! += x!.data[i]! * dy!.data[k]!
    })
    return dw
  },
  ConvBiasGradient: ([, dy], node) => {
    const db = tabulate(shapeOf(node), () => 0)
    for (const [i, value] of dy!.data.entries()) db.data[i % db.data.length]! += value
    return db
  },
  MaxPool: pooling(values => Math.max(...values)),
  AveragePool: pooling(values => sum(values) / values.length),
  BatchInward: ([x], node) => tabulate(shapeOf(node), ([h, w, n, c]) => at(x!, [n!, h!, w!, c!])),
  BatchOutward: ([x], node) => tabulate(shapeOf(node), ([n, h, w, c]) => at(x!, [h!, w!, n!, c!])),
  BatchNormalization: batchNormalization,
  SoftmaxCrossEntropy: ([logits, targets], node) => {
    const wanted = rowsOf(targets!)
    const losses = rowsOf(logits!).map((row, n) => -sum(logSoftmaxOf(row).map((x, k) => x * wanted[n]![k]!)))
    return { shape: shapeOf(node), data: Float64Array.from(losses) }
  },
}

/** A host tensor's values in float64. */
export function valuesOf(tensor: HostTensor): Values {
  return { shape: tensor.shape, data: Float64Array.from(toNumbers(tensor)) }
}

/**
 * The values of `outputs` in float64; `feeds` gives each input of the graph by its name. With `expand`, each
 * composite is computed by its expansion instead of by its reference.
 */
export function evaluateReference(
  outputs: readonly Tensor[],
  feeds: Readonly<Record<string, Values>>,
  { expand = false } = {},
): Values[] {
  const expands = (node: Node) =>
    node.op.expand !== undefined && (expand || references[node.op.op] === undefined)
  const known = new Map<Node, readonly Values[]>()
  const found = (tensor: Tensor) => known.get(tensor.node)![tensor.index]!
  for (const node of topological(outputs, n => (expands(n) ? expansionOf(n) : n.inputs))) {
    const results = expands(node) ? expansionOf(node).map(found) : compute(node, node.inputs.map(found))
    for (const [i, { shape }] of node.outputs.entries())
      if (showShape(results[i]!.shape) !== showShape(shape))
        throw new Error(
          `${node.op.op}: promised ${showShape(shape)}, its reference gave ${showShape(results[i]!.shape)}`,
        )
    known.set(node, results)
  }
  return outputs.map(found)

  function compute(node: Node, inputs: readonly Values[]): readonly Values[] {
    if (node.op === Input) {
      const fed = feeds[node.attributes.name]
      if (!fed) throw new Error(`reference: no value for input "${node.attributes.name}"`)
      return [fed]
    }
    const reference = references[node.op.op]
    if (!reference) throw new Error(`reference: ${node.op.op} has none`)
    const result = reference(inputs, node)
    return Array.isArray(result) ? result : [result as Values]
  }
}

/** Whether a node's op has a reference of its own or an expansion. */
export function isCovered(name: string, expandable: boolean): boolean {
  return name === Input.op || name === Constant.op || expandable || references[name] !== undefined
}
