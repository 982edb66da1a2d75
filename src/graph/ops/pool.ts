/** Pooling of feature maps [H, W, N, C], one axis after the other: a maximum of maxima is the maximum. */
import { hostTensor, sizeOf } from '../../util/host-tensor.ts'
import { apply, type Lowering, type OpDefinition, type Tensor } from '../node.ts'
import { mapExtents } from './batch-axis.ts'
import { add, max, mul, Relu, relu } from './elementwise.ts'
import { pad, reshape, slice, split } from './shape.ts'
import { constant } from './source.ts'
import { cell, hasPadding, type Pair, type WindowAttributes, windowCounts } from './window.ts'

// maximum over windows. The gradient goes to the first maximum in reading order, by the tournament of `Max`:
// two to three times faster than MaxPool with indices, and the same on every device.
export const MaxPool: OpDefinition = {
  op: 'MaxPool',
  shape: pooledShape,
  gradient: 'expand',
  expand({ inputs: [x], attributes }) {
    const window = attributes as WindowAttributes
    // The lowest float32: padding never wins.
    const padded = pad(x!, [...window.before, 0, 0], [...window.after, 0, 0], -3.4028234663852886e38)
    return alongAxis(alongAxis(padded, 1, window, max), 0, window, max)
  },
  onnx: (lowering, inputs, node) => portablePool(lowering, 'MaxPool', inputs, node.attributes),
}

// mean over windows; cells of padding do not count
export const AveragePool: OpDefinition = {
  op: 'AveragePool',
  shape: pooledShape,
  gradient: 'expand',
  expand({ inputs: [x], attributes }) {
    const window = attributes as WindowAttributes
    const padded = pad(x!, [...window.before, 0, 0], [...window.after, 0, 0])
    const sum = alongAxis(alongAxis(padded, 1, window, add), 0, window, add)
    if (!hasPadding(window)) return mul(sum, 1 / (window.kernel[0] * window.kernel[1]))
    const [rows, columns] = [0, 1].map(axis =>
      countsInside(x!.shape as unknown as Pair, axis as 0 | 1, window),
    )
    const shares = rows!.flatMap(r => columns!.map(c => 1 / (r * c)))
    return mul(sum, constant(hostTensor(x!.dtype, [rows!.length, columns!.length, 1, 1], shares)))
  },
  onnx: (lowering, inputs, node) => portablePool(lowering, 'AveragePool', inputs, node.attributes),
}

/** The maximum of each window. */
export function maxPool(x: Tensor, window: WindowAttributes): Tensor {
  // max(relu(x)) = relu(max(x)), with the same gradient, and fewer values to rectify.
  if (x.node.op === Relu) return relu(maxPool(x.node.inputs[0]!, window))
  return apply(MaxPool, [x], window)
}
export const averagePool = (x: Tensor, window: WindowAttributes): Tensor => apply(AveragePool, [x], window)

function pooledShape([x]: readonly Tensor[], window: WindowAttributes) {
  const [h, w, n, c] = mapExtents('pooling', x!)
  return { dtype: x!.dtype, shape: [...windowCounts([h, w], window), n, c] }
}

/** Combines the cells of each window along one axis of the padded maps. */
function alongAxis(
  x: Tensor,
  axis: 0 | 1,
  { kernel, strides }: WindowAttributes,
  combine: (a: Tensor, b: Tensor) => Tensor,
): Tensor {
  const size = kernel[axis]
  const stride = strides[axis]
  const count = Math.floor((x.shape[axis]! - size) / stride) + 1
  const before = x.shape.slice(0, axis)
  const rest = sizeOf(x.shape.slice(axis + 1))
  let cells: readonly Tensor[]
  if (size === stride) {
    // Windows side by side: one split, and one concatenation as its gradient.
    const whole = slice(x, axis, 0, count * stride)
    const stacked = reshape(whole, [...before, count, stride, rest])
    cells = split(stacked, axis + 1, new Array<number>(stride).fill(1))
  } else {
    const flat = reshape(x, [...before, x.shape[axis]!, rest])
    cells = Array.from({ length: size }, (_, t) => slice(flat, axis, t, count, stride))
  }
  return reshape(cells.reduce(combine), [...before, count, ...x.shape.slice(axis + 1)])
}

/** How many cells of each window along an axis lie in the map. */
function countsInside(size: Pair, axis: 0 | 1, window: WindowAttributes): number[] {
  return Array.from({ length: windowCounts([size[0], size[1]], window)[axis] }, (_, o) => {
    const cells = Array.from({ length: window.kernel[axis] }, (_, t) => cell(window, axis, o, t))
    return cells.filter(i => i >= 0 && i < size[axis]).length
  })
}

/** ONNX's own pooling, over [N, C, H, W], for programs that others read. */
function portablePool(
  lowering: Lowering,
  op: string,
  [x]: readonly string[],
  window: WindowAttributes,
): string[] {
  const maps = lowering.emit('Transpose', [x!], { perm: { ints: [2, 3, 0, 1] } })[0]!
  const y = lowering.emit(op, [maps], {
    kernel_shape: { ints: window.kernel },
    strides: { ints: window.strides },
    pads: { ints: [...window.before, ...window.after] },
  })[0]!
  return lowering.emit('Transpose', [y], { perm: { ints: [2, 3, 0, 1] } })
}
