/**
 * Convolution of feature maps x [H, W, N, C] with a kernel w [kH, kW, C, K]: y [H', W', N, K],
 *
 *   y[o, n, k] = b[k] + sum over taps t and channels c of x[o s + t d - p, n, c] w[t, c, k]
 *
 * with strides s, dilation d and padding p. In training programs each becomes gathers, transforms and matrix
 * products, by the form that `formOf` chooses; the forms share their gathered columns between the forward and
 * the backward pass.
 */
import { UsageError } from '../../util/errors.ts'
import { hostTensor, type Shape, showShape } from '../../util/host-tensor.ts'
import { apply, type Lowering, type Node, type OpDefinition, type Tensor } from '../node.ts'
import { batchInnermost } from './batch-axis.ts'
import { depthwise } from './conv-depthwise.ts'
import { dftConvolution, dftInputGradient, dftKernelGradient } from './conv-dft.ts'
import { formOf } from './conv-form.ts'
import { winogradConvolution, winogradInputGradient, winogradKernelGradient } from './conv-winograd.ts'
import { add, mul } from './elementwise.ts'
import { gather } from './gather.ts'
import { matMul, reduceSum } from './reduce.ts'
import { concat, Pad, type PadAttributes, pad, reshape, slice, split, transpose } from './shape.ts'
import { constant, filled } from './source.ts'
import {
  cell,
  type Extents,
  hasPadding,
  type Pair,
  spanOf,
  type WindowAttributes,
  windowCounts,
} from './window.ts'

const extents = (x: Tensor) => x.shape as unknown as Extents

// y = conv(x, w) + b: dx, dw and db are ops of their own
export const Conv: OpDefinition = {
  op: 'Conv',
  shape([x, w], window: WindowAttributes) {
    checkConv(x!, w!, 1)
    const [h, width, n] = extents(x!)
    return { dtype: x!.dtype, shape: [...windowCounts([h, width], window), n, w!.shape[3]!] }
  },
  gradient: ({ inputs: [x, w, b], attributes }, [dy]) => [
    apply(ConvInputGradient, [dy!, w!], { ...attributes, size: x!.shape.slice(0, 2) }),
    apply(ConvKernelGradient, [x!, dy!], attributes),
    b && apply(ConvBiasGradient, [x!, dy!], attributes),
  ],
  expand({ inputs: [x, w, b], attributes: window, outputs: [y] }) {
    const [, , c, k] = extents(w!)
    const form = formOf(extents(x!), k, window)
    const biased = (product: Tensor) => (b ? add(product, b) : product)
    if (form.form === 'dft') return biased(dftConvolution(x!, w!, window))
    if (form.form === 'winograd') return biased(winogradConvolution(x!, w!, window, form.tile))
    const kernel = reshape(w!, [-1, k])
    if (form.form === 'few-channels') {
      const columns = columnsFor('few-channels', x!, window)
      // A last row of ones carries the bias.
      const bias = b ? reshape(b, [1, k]) : filled([1, k], 0, x!.dtype)
      const weights = concat([kernel, bias], 0)
      if (weights.shape[0] !== columns.shape[1]) throw new Error('conv: rows of columns and kernel differ')
      return reshape(matMul(columns, weights, { transA: true }), y!.shape)
    }
    const columns = form.form === 'pointwise' ? reshape(x!, [-1, c]) : columnsFor('gather', x!, window)
    const product = matMul(columns, kernel)
    return reshape(biased(product), y!.shape)
  },
  onnx: (lowering, inputs, node) => portableConv(lowering, inputs, node, 1),
}

// dx[i, n, c] = sum over taps t with i = o s + t d - p, and k, of dy[o, n, k] w[t, c, k]
export const ConvInputGradient: OpDefinition = {
  op: 'ConvInputGradient',
  shape: ([dy, w], { size }: { size: Pair }) => ({
    dtype: dy!.dtype,
    shape: [...size, dy!.shape[2]!, w!.shape[2]!],
  }),
  gradient: ({ inputs: [dy, w], attributes: { size: _, ...window } }, [g]) => [
    apply(Conv, [g!, w!], window),
    apply(ConvKernelGradient, [g!, dy!], window),
  ],
  expand({ inputs: [dy, w], attributes, outputs: [dx] }) {
    const [, , c, k] = extents(w!)
    const form = formOf(extents(dx!), k, attributes)
    if (form.form === 'pointwise')
      return reshape(matMul(reshape(dy!, [-1, k]), reshape(w!, [c, k]), { transB: true }), dx!.shape)
    if (form.form === 'dft') return dftInputGradient(dy!, w!, attributes.size, attributes)
    if (form.form === 'winograd')
      return winogradInputGradient(dy!, w!, attributes.size, attributes, form.tile)
    const isStrided = attributes.strides.some((stride: number) => stride > 1)
    return (isStrided ? inputGradientByTaps : inputGradientByGather)(dy!, w!, attributes)
  },
}

// dw[t, c, k] = sum over o, n of x[o s + t d - p, n, c] dy[o, n, k]
export const ConvKernelGradient: OpDefinition = {
  op: 'ConvKernelGradient',
  shape: ([x, dy], { kernel }: WindowAttributes) => ({
    dtype: x!.dtype,
    shape: [...kernel, x!.shape[3]!, dy!.shape[3]!],
  }),
  gradient: ({ inputs: [x, dy], attributes }, [g]) => [
    apply(ConvInputGradient, [dy!, g!], { ...attributes, size: x!.shape.slice(0, 2) }),
    apply(Conv, [x!, g!], attributes),
  ],
  expand({ inputs: [x, dy], attributes: window, outputs: [dw] }) {
    const c = x!.shape[3]!
    const k = dy!.shape[3]!
    const form = formOf(extents(x!), k, window)
    if (form.form === 'dft') return dftKernelGradient(x!, dy!, window)
    if (form.form === 'winograd') return winogradKernelGradient(x!, dy!, window, form.tile)
    if (form.form === 'few-channels') {
      const all = fewChannelGradients(x!, dy!, window)
      return reshape(slice(all, 0, 0, all.shape[0]! - 1), dw!.shape)
    }
    const rows = reshape(dy!, [-1, k])
    const columns = form.form === 'pointwise' ? reshape(x!, [-1, c]) : columnsFor('gather', x!, window)
    return reshape(matMul(columns, rows, { transA: true }), dw!.shape)
  },
}

// db[k] = sum over o, n of dy[o, n, k]
export const ConvBiasGradient: OpDefinition = {
  op: 'ConvBiasGradient',
  shape: ([x, dy]) => ({ dtype: x!.dtype, shape: [dy!.shape[3]!] }),
  gradient: ({ inputs: [, dy] }, [g]) => [undefined, add(mul(dy!, 0), g!)],
  expand({ inputs: [x, dy], attributes: window }) {
    const k = dy!.shape[3]!
    if (formOf(extents(x!), k, window).form !== 'few-channels')
      return reshape(reduceSum(reshape(dy!, [-1, k]), [0]), [k])
    // The same product as the kernel's gradient: its row of ones has summed dy already.
    const all = fewChannelGradients(x!, dy!, window)
    return reshape(slice(all, 0, all.shape[0]! - 1, 1), [k])
  },
}

// convolution in groups of channels; with as many groups as channels, depthwise. w [kH, kW, C / groups, K]
export const GroupedConv: OpDefinition = {
  op: 'GroupedConv',
  shape([x, w], { groups, ...window }: WindowAttributes & { groups: number }) {
    checkConv(x!, w!, groups)
    const [h, width, n] = extents(x!)
    return { dtype: x!.dtype, shape: [...windowCounts([h, width], window), n, w!.shape[3]!] }
  },
  gradient: 'expand',
  expand({ inputs: [x, w], attributes: { groups, ...window } }) {
    if (w!.shape[2] === 1) return depthwise(x!, w!, window)
    const shares = (total: number) => new Array<number>(groups).fill(total / groups)
    const inputs = split(x!, 3, shares(x!.shape[3]!))
    const kernels = split(w!, 3, shares(w!.shape[3]!))
    return concat(
      inputs.map((part, i) => apply(Conv, [part, kernels[i]!], window)),
      3,
    )
  },
  onnx: (lowering, inputs, node) => portableConv(lowering, inputs, node, node.attributes.groups),
}

/** Convolution; see the head of this file. `groups` 1 is dense; a bias [K] is optional. */
export function conv(
  x: Tensor,
  w: Tensor,
  b: Tensor | undefined,
  window: WindowAttributes,
  groups = 1,
): Tensor {
  if (groups === 1) {
    const padded = withoutZeros(x, window)
    return padded ? conv(padded.x, w, b, padded.window) : apply(Conv, b ? [x, w, b] : [x, w], window)
  }
  const y = apply(GroupedConv, [x, w], { ...window, groups })
  return b ? add(y, b) : y
}

/**
 * Maps before zeros were padded around them, and the window that reads the same; undefined: none were, or whole windows
 * of them.
 */
function withoutZeros(
  x: Tensor,
  window: WindowAttributes,
): { readonly x: Tensor; readonly window: WindowAttributes } | undefined {
  if (x.node.op !== Pad) return undefined
  const { before, after, value } = x.node.attributes as PadAttributes
  const isWithin = ([0, 1] as const).every(
    axis => Math.max(before[axis]!, after[axis]!) <= spanOf(window, axis),
  )
  const isOfMaps = [...before.slice(2), ...after.slice(2)].every(n => n === 0)
  if (!isWithin || !isOfMaps || value !== 0) return undefined
  const joined = (cells: Pair, more: Shape): Pair => [cells[0] + more[0]!, cells[1] + more[1]!]
  const own = { before: joined(window.before, before), after: joined(window.after, after) }
  return { x: x.node.inputs[0]!, window: { ...window, ...own } }
}

function checkConv(x: Tensor, w: Tensor, groups: number): void {
  const channels = x.shape[3]
  if (x.shape.length !== 4 || w.shape.length !== 4 || channels !== w.shape[2]! * groups)
    throw new UsageError(
      `conv: a kernel of shape ${showShape(w.shape)}${groups > 1 ? ` in ${groups} groups` : ''} expects ${w.shape[2]! * groups} input channels, received ${channels} (input [H, W, N, C] ${showShape(x.shape)})`,
    )
}

/** A last row of zeros for cells that lie in the padding. */
function withZeroRow(rows: Tensor): Tensor {
  return concat([rows, filled([1, rows.shape[1]!], 0, rows.dtype)], 0)
}

const columnsOf = new WeakMap<Tensor, Map<string, Tensor>>()

/** The columns of x for a window, made once: forward pass and kernel gradient read the same ones. */
function columnsFor(form: 'few-channels' | 'gather', x: Tensor, window: WindowAttributes): Tensor {
  const make = form === 'gather' ? gatherColumns : fewChannelColumns
  const { kernel, strides, dilation, before, after } = window
  const name = JSON.stringify([form, kernel, strides, dilation, before, after])
  const known = columnsOf.get(x) ?? new Map<string, Tensor>()
  columnsOf.set(x, known)
  const columns = known.get(name) ?? make(x, window)
  known.set(name, columns)
  return columns
}

/** [H' W' N, kH kW C]: for each output the inputs that it reads, as rows of channels. */
function gatherColumns(x: Tensor, window: WindowAttributes): Tensor {
  const [h, w, n, c] = extents(x)
  const [rows, columns] = windowCounts([h, w], window)
  const [kh, kw] = window.kernel
  const indices = new Int32Array(rows * columns * n * kh * kw)
  let at = 0
  for (let oh = 0; oh < rows; oh++)
    for (let ow = 0; ow < columns; ow++)
      for (let image = 0; image < n; image++)
        for (let i = 0; i < kh; i++)
          for (let j = 0; j < kw; j++)
            indices[at++] = rowOf(cell(window, 0, oh, i), cell(window, 1, ow, j), [h, w], n, image)
  const source = reshape(x, [-1, c])
  const picked = gather(
    hasPadding(window) ? withZeroRow(source) : source,
    constant({ dtype: 'int32', shape: [indices.length], data: indices }),
  )
  return reshape(picked, [rows * columns * n, kh * kw * c])
}

/** The row of cell (i, j) of an image, or the last row, of zeros, outside. */
function rowOf(i: number, j: number, [h, w]: Pair, n: number, image: number): number {
  return i < 0 || j < 0 || i >= h || j >= w ? h * w * n : (i * w + j) * n + image
}

/**
 * [H', kH kW C + 1, W' N]: the inputs that each output reads, as columns; the last row is of ones. A row of outputs is
 * a matrix, so that threads share the products by rows, and find what they wrote of dy in their own caches.
 */
function fewChannelColumns(x: Tensor, window: WindowAttributes): Tensor {
  const [h, w, n, c] = extents(x)
  const [rows, columns] = windowCounts([h, w], window)
  const [kh, kw] = window.kernel
  const ones = h * w * c
  const indices = new Int32Array((kh * kw * c + 1) * rows * columns).fill(ones)
  let at = 0
  for (let oh = 0; oh < rows; oh++) {
    for (let i = 0; i < kh; i++)
      for (let j = 0; j < kw; j++)
        for (let channel = 0; channel < c; channel++)
          for (let ow = 0; ow < columns; ow++) {
            const row = rowOf(cell(window, 0, oh, i), cell(window, 1, ow, j), [h, w], 1, 0)
            indices[at++] = row === h * w ? ones + 1 : row * c + channel
          }
    at += columns
  }
  const border = constant(hostTensor(x.dtype, [2, n], [...new Array(n).fill(1), ...new Array(n).fill(0)]))
  const picked = gather(
    concat([batchInnermost(x), border], 0),
    constant({ dtype: 'int32', shape: [indices.length], data: indices }),
  )
  return reshape(picked, [rows, kh * kw * c + 1, columns * n])
}

/** [kH kW C + 1, K]: the kernel's gradient by rows of columns, and the bias's, which the row of ones sums. */
function fewChannelGradients(x: Tensor, dy: Tensor, window: WindowAttributes): Tensor {
  const columns = columnsFor('few-channels', x, window)
  const [rows, taps, width] = columns.shape as [number, number, number]
  const k = dy.shape[3]!
  return reshape(reduceSum(matMul(columns, reshape(dy, [rows, width, k])), [0]), [taps, k])
}

/** Without strides the input's gradient is a convolution of dy: by the taps in reverse. */
function inputGradientByGather(dy: Tensor, w: Tensor, attributes: WindowAttributes & { size: Pair }): Tensor {
  const [kh, kw, c, k] = extents(w)
  const { size, before, after } = attributes
  const beyond = (padding: Pair): Pair => [
    spanOf(attributes, 0) - padding[0],
    spanOf(attributes, 1) - padding[1],
  ]
  const columns = gatherColumns(dy, { ...attributes, before: beyond(before), after: beyond(after) })
  const reversed = Array.from({ length: kh * kw }, (_, tap) => kh * kw - 1 - tap)
  const taps = gather(
    transpose(reshape(w, [kh * kw, c, k]), [0, 2, 1]),
    constant(hostTensor('int32', [kh * kw], reversed)),
  )
  return reshape(matMul(columns, reshape(taps, [kh * kw * k, c])), [...size, dy.shape[2]!, c])
}

/**
 * The input's gradient: what each output sends back by each of its taps is one product, and each input sums up what it
 * receives. Inputs of equal position modulo the stride receive by the same taps, and lie in one plane.
 */
function inputGradientByTaps(dy: Tensor, w: Tensor, attributes: WindowAttributes & { size: Pair }): Tensor {
  const [kh, kw, c, k] = extents(w)
  const [rows, columns, n] = extents(dy)
  const { size, strides } = attributes
  const sent = matMul(reshape(dy, [-1, k]), reshape(w, [kh * kw * c, k]), { transB: true })
  const taps = split(reshape(sent, [rows, columns, n, kh * kw * c]), 3, new Array<number>(kh * kw).fill(c))
  const counts = [0, 1].map(axis => Math.ceil(size[axis]! / strides[axis]!)) as unknown as Pair
  const [down, across] = [0, 1].map(axis => Math.min(strides[axis]!, size[axis]!)) as unknown as Pair
  const none = () => filled([...counts, n, c], 0, dy.dtype)
  const planes = Array.from({ length: down }, (_, a) => {
    const row = Array.from({ length: across }, (_, b) => {
      const received = receivedAt(attributes, 0, a).flatMap(([i, top]) =>
        receivedAt(attributes, 1, b).flatMap(
          ([j, left]) => shifted(taps[i * kw + j]!, [top, left], counts) ?? [],
        ),
      )
      return received.length === 0 ? none() : received.reduce(add)
    })
    return reshape(interleaved(row, 1), [counts[0], counts[1] * across, n, c])
  })
  const whole = reshape(interleaved(planes, 0), [counts[0] * down, counts[1] * across, n, c])
  return slice(slice(whole, 0, 0, size[0]), 1, 0, size[1])
}

/** Taps by which windows read cells of this remainder modulo the stride; and by which window the first of them. */
function receivedAt(window: WindowAttributes, axis: 0 | 1, remainder: number): (readonly [number, number])[] {
  return Array.from({ length: window.kernel[axis] }, (_, tap) => {
    const distance = remainder + window.before[axis] - tap * window.dilation[axis]
    return [tap, distance / window.strides[axis]] as const
  }).filter(([, first]) => Number.isInteger(first))
}

/** Rows and columns of maps, so many from these on, with zeros where there are none; undefined: there are none at all. */
function shifted(x: Tensor, from: Pair, counts: Pair): Tensor | undefined {
  let maps = x
  for (const axis of [0, 1] as const) {
    const extent = x.shape[axis]!
    const [first, end] = [from[axis], from[axis] + counts[axis]].map(at => Math.min(Math.max(at, 0), extent))
    if (first! >= end!) return undefined
    maps = slice(maps, axis, first!, end! - first!)
  }
  const before = from.map(at => Math.max(-at, 0))
  const after = [0, 1].map(axis => counts[axis]! - before[axis]! - maps.shape[axis]!)
  return pad(maps, [...before, 0, 0], [...after, 0, 0])
}

/** Maps that take turns along an axis, beside each other on an axis of their own after it. */
function interleaved(maps: readonly Tensor[], axis: 0 | 1): Tensor {
  const shape = (x: Tensor) => [...x.shape.slice(0, axis + 1), 1, ...x.shape.slice(axis + 1)]
  return concat(
    maps.map(x => reshape(x, shape(x))),
    axis + 1,
  )
}

/** ONNX's own Conv, over [N, C, H, W], for programs that others read. */
function portableConv(
  lowering: Lowering,
  [x, w, b]: readonly string[],
  node: Node,
  groups: number,
): string[] {
  const window = node.attributes as WindowAttributes
  const maps = lowering.emit('Transpose', [x!], { perm: { ints: [2, 3, 0, 1] } })[0]!
  const kernel = lowering.emit('Transpose', [w!], { perm: { ints: [3, 2, 0, 1] } })[0]!
  const y = lowering.emit('Conv', b ? [maps, kernel, b] : [maps, kernel], {
    kernel_shape: { ints: window.kernel },
    strides: { ints: window.strides },
    dilations: { ints: window.dilation },
    pads: { ints: [...window.before, ...window.after] },
    group: { int: groups },
  })[0]!
  return lowering.emit('Transpose', [y], { perm: { ints: [2, 3, 0, 1] } })
}
