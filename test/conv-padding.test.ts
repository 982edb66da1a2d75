/** Zeros around maps become part of a convolution's window where that reads the same. */
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { type Tensor, topological } from '../src/graph/node.ts'
import { conv } from '../src/graph/ops/conv.ts'
import { mul, relu } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { pad } from '../src/graph/ops/shape.ts'
import { input } from '../src/graph/ops/source.ts'
import { type Pair, windowOf } from '../src/graph/ops/window.ts'
import { hostTensor, type Shape, sizeOf } from '../src/util/host-tensor.ts'
import { key, normal } from '../src/util/random.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import { valuesOf } from './reference.ts'

const isPadded = (tensor: Tensor) => topological([tensor]).some(({ op }) => op.op === 'Pad')

describe.each<readonly [string, { strides: Pair; before: Shape; after: Shape; channels?: number }]>([
  ['strides of 2', { strides: [2, 2], before: [1, 1, 0, 0], after: [1, 1, 0, 0] }],
  ['an odd size', { strides: [2, 2], before: [2, 0, 0, 0], after: [0, 1, 0, 0] }],
  ['all that a window reaches', { strides: [1, 1], before: [2, 1, 0, 0], after: [2, 1, 0, 0] }],
  ['few channels', { strides: [2, 1], before: [1, 1, 0, 0], after: [2, 0, 0, 0], channels: 3 }],
])('zeros before a convolution, %s', (_, { strides, before, after, channels = 5 }) => {
  test('the same result and gradients, and no maps with zeros around them', async () => {
    const shapes = { x: [6, 5, 2, channels], w: [3, 3, channels, 4] }
    const [x, w] = Object.entries(shapes).map(([name, shape]) => input(name, 'float32', shape))
    const feeds = Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [
        name,
        hostTensor('float32', shape, normal(key(1, name), sizeOf(shape))),
      ]),
    )
    const size = [0, 1].map(axis => x!.shape[axis]! + before[axis]! + after[axis]!) as unknown as Pair
    const window = windowOf('test', size, [3, 3], strides, 'valid')
    const joined = conv(pad(relu(x!), before, after), w!, undefined, window)
    const apart = conv(relu(pad(x!, before, after)), w!, undefined, window)
    expect([joined, apart].map(isPadded)).toEqual([false, true])
    const results = [joined, apart].map(y => [y, ...gradients(sumAll(mul(y, y)), [x!, w!])])
    const [ours, theirs] = await Promise.all(results.map(tensors => evaluate(tensors, feeds)))
    for (const [i, tensor] of ours!.entries())
      expectClose(valuesOf(tensor), valuesOf(theirs![i]!), 2e-6, ['y', 'dx', 'dw'][i]!)
  })
})

test.each<readonly [string, Shape, Shape, number]>([
  ['another value', [1, 1, 0, 0], [0, 0, 0, 0], 1],
  ['channels', [0, 0, 0, 1], [0, 0, 0, 0], 0],
  ['whole windows of zeros', [3, 0, 0, 0], [0, 0, 0, 0], 0],
])('stays a pad: %s', (_, before, after, value) => {
  const x = pad(input('x', 'float32', [6, 5, 2, 4]), before, after, value)
  const w = input('w', 'float32', [3, 3, x.shape[3]!, 4])
  const window = windowOf('test', [x.shape[0]!, x.shape[1]!], [3, 3], [1, 1], 'valid')
  expect(isPadded(conv(x, w, undefined, window))).toBe(true)
})
