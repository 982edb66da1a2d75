/** The batch axis of feature maps: outermost in images, beside the channels in maps, innermost in columns. */
import { UsageError } from '../../util/errors.ts'
import { type Shape, sameShape, showShape } from '../../util/host-tensor.ts'
import { apply, type Lowering, type OpDefinition, type Tensor, withOrigin } from '../node.ts'
import { Add, Cast, Clip, Div, Elu, LeakyRelu, Mul, Relu, Sigmoid, Sub, Tanh } from './elementwise.ts'
import { reshape, transpose } from './shape.ts'

/** The four extents of feature maps. */
export function mapExtents(op: string, { shape }: Tensor): readonly [number, number, number, number] {
  if (shape.length !== 4)
    throw new UsageError(`${op}: expected feature maps of 4 axes, received ${showShape(shape)}`)
  return shape as unknown as readonly [number, number, number, number]
}

// feature maps [N, H, W, C] to [H, W, N, C]: dx = the way back. With space first,
// convolution is matrix products.
export const BatchInward: OpDefinition = {
  op: 'BatchInward',
  shape([x]) {
    const [n, h, w, c] = mapExtents('BatchInward', x!)
    return { dtype: x!.dtype, shape: [h, w, n, c] }
  },
  gradient: (_node, [dy]) => [batchOutward(dy!)],
  onnx(lowering, [x], { inputs, outputs }) {
    const [n, h, w, c] = mapExtents('BatchInward', inputs[0]!)
    return swapped(lowering, x!, [n, h * w, c], outputs[0]!.shape)
  },
}

// feature maps [H, W, N, C] to [N, H, W, C]: dx = the way back
export const BatchOutward: OpDefinition = {
  op: 'BatchOutward',
  shape([x]) {
    const [h, w, n, c] = mapExtents('BatchOutward', x!)
    return { dtype: x!.dtype, shape: [n, h, w, c] }
  },
  gradient: (_node, [dy]) => [batchInward(dy!)],
  onnx(lowering, [x], { inputs, outputs }) {
    const [h, w, n, c] = mapExtents('BatchOutward', inputs[0]!)
    return swapped(lowering, x!, [h * w, n, c], outputs[0]!.shape)
  },
}

/** Swaps the first two axes, with height and width as one: a 4-D transpose costs many times as much. */
function swapped(lowering: Lowering, x: string, merged: Shape, result: Shape): string[] {
  const rows = lowering.emit('Reshape', [x, lowering.ints(merged)])
  const moved = lowering.emit('Transpose', rows, { perm: { ints: [1, 0, 2] } })
  return lowering.emit('Reshape', [moved[0]!, lowering.ints(result)])
}

/** [N, H, W, C] to [H, W, N, C]. */
export function batchInward(x: Tensor): Tensor {
  const { op, inputs, attributes } = x.node
  if (op === BatchOutward) return inputs[0]!
  // Pixels as bytes move four times as fast as numbers.
  if (op === Cast) return apply(Cast, [batchInward(inputs[0]!)], attributes)
  return apply(BatchInward, [x])
}

/** [H, W, N, C] to [N, H, W, C]. */
export function batchOutward(x: Tensor): Tensor {
  return undone(x) ?? apply(BatchOutward, [x])
}

/** [H, W, N, C] to [H W C, N]. */
export function batchInnermost(x: Tensor): Tensor {
  const [h, w, n, c] = mapExtents('batchInnermost', x)
  // Of images as they come, the transpose of one matrix: many times as fast as moving a channel at a time.
  const turned = laidOut(x, images => transpose(reshape(images, [n, h * w * c]), [1, 0]))
  return turned ?? reshape(transpose(reshape(x, [h * w, n, c]), [0, 2, 1]), [h * w * c, n])
}

const movable: ReadonlySet<OpDefinition> = new Set([
  ...[Add, Sub, Mul, Div, Cast],
  ...[Relu, LeakyRelu, Elu, Tanh, Sigmoid, Clip],
])

/** `x` as it was before `batchInward`, where only scalars were applied to it since: both moves are saved. */
const undone = (x: Tensor): Tensor | undefined => laidOut(x, images => images)

/** The images [N, H, W, C] that `x` comes from in another layout, and what was applied to them since. */
function laidOut(x: Tensor, layout: (images: Tensor) => Tensor): Tensor | undefined {
  const { op, inputs, attributes, origin } = x.node
  if (op === BatchInward) return withOrigin(origin, () => layout(inputs[0]!))
  const maps = inputs.filter(input => input.shape.length > 0)
  // Ops on each element by itself: only they don't care where the axes are.
  if (!movable.has(op) || maps.length !== 1 || !sameShape(maps[0]!.shape, x.shape)) return undefined
  const before = laidOut(maps[0]!, layout)
  if (!before) return undefined
  const now = inputs.map(input => (input === maps[0] ? before : input))
  return withOrigin(origin, () => apply(op, now, attributes))
}
