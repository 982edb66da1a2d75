/**
 * Every form of a convolution against the definition in float64, on what networks really compute: layers and
 * gradients of trained networks on real images.
 */
import {
  adam,
  architectureNamed,
  crossEntropy,
  type DataSet,
  type Engine,
  loadDataSet,
  openEngine,
  trainingSpec,
} from 'fovea'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { apply, type Node, type Tensor, topological } from '../src/graph/node.ts'
import { Conv, ConvInputGradient, ConvKernelGradient } from '../src/graph/ops/conv.ts'
import { formOf } from '../src/graph/ops/conv-form.ts'
import { reduceMean } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import { type ConvMethod, convMethods, type Extents, type WindowAttributes } from '../src/graph/ops/window.ts'
import { buildModel } from '../src/nn/build.ts'
import { lossPerExample } from '../src/nn/losses.ts'
import { specHash } from '../src/train/spec.ts'
import { type HostTensor, hostTensor, sizeOf } from '../src/util/host-tensor.ts'
import { evaluate } from './evaluate.ts'
import { evaluateReference, type Values, valuesOf } from './reference.ts'
import { train } from './train-with.ts'

/** Times the largest value: what docs/speed.md states. */
const ERRORS: Readonly<Record<ConvMethod, number>> = { gather: 2e-6, dft: 4e-6, winograd: 1e-5 }

const IMAGES = 2
/** Products of a layer that the definition in plain loops can be asked for. */
const MOST_PRODUCTS = 2e8

let data: DataSet
let engine: Engine
beforeAll(async () => {
  data = await loadDataSet('fashion-mnist-subset')
  engine = await openEngine({ threads: 1 })
})
afterAll(() => engine.close())

const trainImages = () => ({ images: data.train.images, labels: data.train.labels })

/** A convolution with the values that it met. */
interface Met {
  readonly window: WindowAttributes
  readonly x: HostTensor
  readonly w: HostTensor
  /** The loss's gradient by its output. */
  readonly dy: HostTensor
}

/** Trains a network for some steps and looks at its convolutions, one of each shape. */
async function convolutionsOf(name: string): Promise<Met[]> {
  const model = architectureNamed(name).build(data.imageShape, data.classes.length)
  const loss = crossEntropy()
  const program = compileTraining({ model, loss, optimizer: adam(), batchSize: 16 })
  const { state } = await train(engine, program, trainImages(), 1e-3, [15])
  const images = input('images', 'float32', [IMAGES, ...data.imageShape])
  const labels = input('labels', 'int32', [IMAGES])
  const { logits } = buildModel(model, images, { training: false })
  const inside = topological([logits])
  const shapes = new Set<string>()
  const nodes = inside.filter(({ op, inputs: [x, w], attributes }) => {
    const shape = JSON.stringify([x?.shape, w?.shape, attributes])
    if (op !== Conv || shapes.has(shape) || products(x!, w!) > MOST_PRODUCTS) return false
    shapes.add(shape)
    return true
  })
  const outputs = nodes.map(node => node.outputs[0]!)
  const wanted = [
    ...nodes.flatMap(({ inputs: [x, w] }) => [x!, w!]),
    ...gradients(reduceMean(lossPerExample(loss, logits, labels)), outputs),
  ]
  const pixels = data.train.images.data.slice(0, IMAGES * sizeOf(data.imageShape))
  const values = await evaluate(wanted, {
    ...state,
    images: hostTensor('float32', images.shape, [...(pixels as Uint8Array)]),
    labels: hostTensor('int32', [IMAGES], [...(data.train.labels.data.slice(0, IMAGES) as Int32Array)]),
  })
  return nodes.map(({ attributes }: Node, i) => ({
    window: attributes,
    x: values[2 * i]!,
    w: values[2 * i + 1]!,
    dy: values[2 * nodes.length + i]!,
  }))
}

const products = (x: Tensor, w: Tensor) => sizeOf(x.shape) * sizeOf(w.shape.slice(0, 2)) * w.shape[3]!

/** The output and both gradients, of a window that says by what method. */
function passes(met: Met, window: WindowAttributes): Tensor[] {
  const [x, w, dy] = (['x', 'w', 'dy'] as const).map(name => input(name, 'float32', met[name].shape))
  return [
    apply(Conv, [x!, w!], window),
    apply(ConvInputGradient, [dy!, w!], { ...window, size: met.x.shape.slice(0, 2) }),
    apply(ConvKernelGradient, [x!, dy!], window),
  ]
}

/** The largest difference, as a share of the largest expected value. */
function errorOf(actual: HostTensor, expected: Values): number {
  const values = valuesOf(actual).data
  const scale = expected.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  return expected.data.reduce((most, value, i) => Math.max(most, Math.abs(values[i]! - value)), 0) / scale
}

test.for([
  ['wang/cnn', 2],
  ['visionnet/plain', 3],
  ['resnet20', 5],
] as const)('every form of the convolutions of %s is the definition', async ([name, least]) => {
  const taken = new Set<string>()
  const met = await convolutionsOf(name)
  expect(met.length).toBeGreaterThanOrEqual(least)
  for (const one of met) {
    const { x, w, dy, window } = one
    const feeds = { x, w, dy }
    const expected = evaluateReference(passes(one, window), {
      x: valuesOf(x),
      w: valuesOf(w),
      dy: valuesOf(dy),
    })
    for (const method of convMethods) {
      const asked = { ...window, method }
      const { form } = formOf(x.shape as unknown as Extents, w.shape[3]!, asked)
      taken.add(form)
      const actual = await evaluate(passes(one, asked), feeds)
      for (const [i, pass] of ['output', "input's gradient", "kernel's gradient"].entries())
        expect(
          errorOf(actual[i]!, expected[i]!),
          `${name}, ${x.shape} by ${w.shape}, ${form}, ${pass}`,
        ).toBeLessThan(ERRORS[method])
    }
  }
  expect([...taken]).toEqual(expect.arrayContaining(['gather', 'dft', 'winograd']))
})

describe('a trial that asks for a form', () => {
  const model = architectureNamed('wang/cnn').build([28, 28, 1], 10)
  const base = { model, loss: crossEntropy(), optimizer: adam(), batchSize: 16 }

  test('is another program, recorded in its hash, and learns the same', async () => {
    const programs = [undefined, ...convMethods].map(convolution =>
      compileTraining({ ...base, ...(convolution ? { convolution } : {}) }),
    )
    // One of them is what is chosen without asking.
    expect(new Set(programs.map(({ hash }) => hash)).size).toBeGreaterThanOrEqual(3)
    const losses: (readonly number[])[] = []
    for (const program of programs) losses.push((await train(engine, program, trainImages(), 1e-3, [4])).loss)
    for (const other of losses.slice(1)) {
      expect(other[0]).toBeCloseTo(losses[0]![0]!, 5)
      // Adam's first steps go by the signs of gradients, however small: roundings grow from there.
      expect(other.at(-1)).toBeCloseTo(losses[0]!.at(-1)!, 2)
    }
  })

  test('is another trial', () => {
    const spec = trainingSpec(model, data)
    expect(specHash({ ...spec, convolution: 'gather' })).not.toBe(specHash(spec))
  })
})
