/**
 * Keras's VGG16, ResNet50 and Xception: names, order and shapes of their layers, and their logits for weights
 * of a formula.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Model } from '../src/nn/model.ts'
import { type HostTensor, sizeOf, zeros } from '../src/util/host-tensor.ts'
import { key, uniform } from '../src/util/random.ts'
import {
  checkWeights,
  foveaLayers,
  matchWeights,
  type NamedTensors,
  wantedLayers,
} from '../src/weights/index.ts'
import { automaticName, roleOf } from '../src/weights/keras-names.ts'
import { kerasOrder } from '../src/weights/keras-order.ts'
import type { FileLayer } from '../src/weights/named-tensors.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { expectClose } from './expect-close.ts'
import { logitsOf } from './weights-logits.ts'

interface Application {
  readonly name: string
  readonly side: number
  readonly layers: readonly {
    readonly name: string
    readonly weights: readonly { readonly name: string; readonly shape: readonly number[] }[]
  }[]
  readonly logits: readonly number[]
}

const applications: readonly Application[] = JSON.parse(
  readFileSync(new URL('golden/weights.json', import.meta.url), 'utf8'),
).applications

/** Fovea's network as Keras's without top, with global average pooling and one dense layer of 10 units. */
const modelOf = ({ name, side }: Application) =>
  architectureNamed(name).build([side, side, 3], 10, { preprocessing: 'imagenet', top: 'pooling' })

/** scripts/golden/formula.py: a tensor's values repeat after so many. */
const PERIOD = 65_521

/** scripts/golden/formula.py, formula_weights. */
function formula(layer: string, weight: string, shape: readonly number[]): HostTensor {
  const u = uniform(key(0, 'weights', layer, weight), Math.min(sizeOf(shape), PERIOD))
  const taps = weight === 'depthwise_kernel' ? shape[0]! * shape[1]! : sizeOf(shape.slice(0, -1))
  const scale = weight.endsWith('kernel') ? 2 * Math.sqrt(3 / taps) : 1
  const offset = ['gamma', 'moving_variance'].includes(weight) ? 0.5 : -0.5
  const data = new Float32Array(sizeOf(shape))
  for (let i = 0; i < data.length; i++) data[i] = (u[i % PERIOD]! + offset) * scale
  return { dtype: 'float32', shape, data }
}

describe.for(applications)('$name', application => {
  const { name, side, layers } = application

  let saved: FileLayer[] | undefined

  /** What Keras would have saved; `change` may leave out layers, and add some. */
  function file(
    change: (layer: FileLayer, i: number) => FileLayer | FileLayer[] | undefined = layer => layer,
  ): NamedTensors {
    saved ??= layers.map(layer => ({
      name: layer.name,
      kind: automaticName(layer.name)?.kind,
      tensors: layer.weights.map(({ name: weight, shape }) => ({
        name: `${layer.name}/${weight}`,
        role: roleOf(weight),
        tensor: formula(layer.name, weight, shape),
      })),
    }))
    const changed = saved.flatMap((layer, i) => change(layer, i) ?? [])
    return { path: `${name}.h5`, format: 'keras-legacy-h5', layers: changed }
  }

  test("Keras's names and shapes, in its order", () => {
    const { values } = matchWeights(modelOf(application), file())
    const inOrder = kerasOrder(modelOf(application)).flatMap(({ name: layer }) => {
      const own = Object.entries(values).filter(([tensor]) => tensor.startsWith(`${layer}/`))
      return own.length > 0 ? [{ name: layer, shapes: own.map(([, { shape }]) => shape) }] : []
    })
    expect(inOrder).toEqual(
      layers.map(layer => ({ name: layer.name, shapes: layer.weights.map(({ shape }) => shape) })),
    )
  })

  test("Keras's logits, with the names and by the order alone", async () => {
    const model = modelOf(application)
    const { values, report } = matchWeights(model, file())
    expect(report).toMatchObject({ by: 'name', missing: [], unused: [], misshapen: [] })
    const pixels = Float64Array.from(uniform(key(0, 'image', name), side * side * 3), u =>
      Math.floor(u * 256),
    )
    const logits = await logitsOf(model, values, { shape: [1, side, side, 3], data: pixels })
    expectClose(logits, { shape: [1, 10], data: Float64Array.from(application.logits) }, 1e-4, name)

    const anonymous = matchWeights(
      model,
      file((layer, i) => ({ ...layer, name: `layer ${i}` })),
    )
    expect(anonymous.report).toEqual({ ...report, by: 'order' })
    expect(Object.entries(anonymous.values).map(([tensor, { data }]) => [tensor, data[0]])).toEqual(
      Object.entries(values).map(([tensor, { data }]) => [tensor, data[0]]),
    )
  })

  test('a backbone without head', () => {
    const { pretrained } = architectureNamed(name)
    const backbone = file(layer => (pretrained!.head.includes(layer.name!) ? undefined : layer))
    const { report } = matchWeights(modelOf(application), backbone)
    expect(report).toMatchObject({ missing: ['predictions/kernel', 'predictions/bias'], unused: [] })
    checkWeights(modelOf(application), backbone, report)
  })

  test('a network that is deeper or shallower than its names', () => {
    const model = modelOf(application)
    const middle = layers.findIndex(
      (layer, i) => i > layers.length / 2 && layer.weights.some(({ shape }) => shape.length === 4),
    )
    const check = (weights: NamedTensors) => () =>
      checkWeights(model, weights, matchWeights(model, weights).report)
    const { name: removed } = layers[middle]!
    expect(check(file((layer, i) => (i === middle ? undefined : layer)))).toThrow(
      `in one of the two networks only: ${removed}`,
    )
    const added = file((layer, i) =>
      i === middle
        ? [{ ...layer, name: 'added', tensors: layer.tensors.map(tensor => ({ ...tensor })) }, layer]
        : layer,
    )
    expect(check(added)).toThrow('in one of the two networks only: added')
  })
})

test('weights with another head are no other architecture', () => {
  // As many classes: the bias of the last layer fits, whatever stands before it.
  const [own, pooling] = (['own', 'pooling'] as const).map(top =>
    architectureNamed('vgg16').build([32, 32, 3], 10, { top }),
  )
  const run = (model: Model): NamedTensors => {
    const tensors = wantedLayers(model).flatMap(layer => layer.tensors)
    const layers = foveaLayers(tensors.map(({ name, shape }) => [name, zeros('float32', shape)]))
    return { path: 'run', format: 'run', layers }
  }
  for (const [model, file] of [
    [own!, run(pooling!)],
    [pooling!, run(own!)],
  ] as const) {
    const { report } = matchWeights(model, file)
    expect(report).toMatchObject({ misshapen: [{ name: 'predictions/kernel' }], inserted: [] })
    checkWeights(model, file, report)
  }
})
