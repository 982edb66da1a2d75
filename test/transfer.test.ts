/** Trials that start from the weights of others. */
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { transferOf } from '../src/cli/transfer.ts'
import type { DataSet } from '../src/data/data-set.ts'
import { loadDataSet } from '../src/data/registry.ts'
import {
  batchNormalization,
  bernoulli,
  compileTraining,
  conv2d,
  cosineDecay,
  crossEntropy,
  dense,
  dropout,
  flatten,
  l2,
  type Model,
  multiHeadAttention,
  rescaling,
  sequential,
  sgd,
  sparseDense,
} from '../src/index.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import { loadCheckpoint, saveCheckpoint } from '../src/train/checkpoint.ts'
import { type FitResult, fit as runFit, storeTrainingImages } from '../src/train/fit.ts'
import { backboneOf, backboneRate, frozenBy } from '../src/train/freeze.ts'
import { specHash, type TrainEvent, trainingSpec } from '../src/train/spec.ts'
import { openWeights, startFrom, weightsOf } from '../src/train/transfer.ts'
import { runTrial } from '../src/train/trial.ts'
import { hashJson } from '../src/util/hash.ts'
import { hostTensor, sizeOf, zeros } from '../src/util/host-tensor.ts'
import { foveaLayers, wantedLayers } from '../src/weights/index.ts'
import { encodeSafetensors } from '../src/weights/safetensors.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { fovea } from './cli-process.ts'
import { errorOf, rejectionOf } from './error-of.ts'
import { sameBits } from './same-bits.ts'

let data: DataSet
let engine: Engine
let folder: string
let run: string

/** Everything that has state or draws random numbers, for images of the subset. */
function everything(classes: number): Model {
  return sequential(
    [
      rescaling({ scale: 1 / 255 }),
      conv2d({ name: 'conv', filters: 4, kernelSize: 5, strides: 3, kernelRegularizer: l2(1e-3) }),
      batchNormalization({ name: 'norm1', momentum: 0.9 }),
      multiHeadAttention({ name: 'attention', numHeads: 2, keyDim: 2 }),
      flatten(),
      sparseDense({ name: 'sparse', units: 16, connectivity: bernoulli({ density: 0.3 }), redraw: 'epoch' }),
      batchNormalization({ name: 'norm2', momentum: 0.9 }),
      dropout(0.2),
      dense({ name: 'logits', units: classes }),
    ],
    { name: 'everything', input: [28, 28, 1] },
  )
}

const split = { fraction: 0.25, validation: 0.1 }

/** The subset with its last classes as one. */
function fewerClasses(all: DataSet, classes: number): DataSet {
  const merged = ({ images, labels, count }: DataSet['train']) => {
    const data = (labels.data as Int32Array).map(label => Math.min(label, classes - 1))
    return { images, count, labels: { ...labels, data } }
  }
  const [train, test] = [merged(all.train), merged(all.test)]
  return { ...all, name: 'fewer', hash: 'f', classes: all.classes.slice(0, classes), train, test }
}

beforeAll(async () => {
  data = await loadDataSet('fashion-mnist-subset')
  engine = await openEngine({ threads: 1 })
  folder = await mkdtemp(join(tmpdir(), 'fovea-transfer-'))
  run = join(folder, 'pretrained')
  const fewer = fewerClasses(data, 7)
  await runTrial(trainingSpec(everything(7), fewer, { split, epochs: 1 }), fewer, { engine, directory: run })
  await storeTrainingImages(engine, data)
})
afterAll(async () => {
  await engine.close()
  await rm(folder, { recursive: true, force: true })
})

/** A specification that starts from the run, with all that transfer knows. */
async function transferred() {
  const model = everything(10)
  const start = startFrom(await openWeights(run, model.name), model)
  const frozen = frozenBy('norm1', model, start.weights)
  const learningRate = cosineDecay({ initialLearningRate: 0.05, decaySteps: 40 })
  const spec = trainingSpec(model, data, {
    split,
    epochs: 3,
    optimizer: sgd({ learningRate, momentum: 0.9 }),
    weights: start.weights,
    frozen,
    backbone: backboneRate(0.005, model, start.weights, frozen),
  })
  return { spec, start }
}

test('what matches by name and shape is loaded, the rest named', async () => {
  const { weights, values } = (await transferred()).start
  expect(weights).toMatchObject({
    source: run,
    loaded: { tensors: 21 },
    all: { tensors: 23 },
    fresh: [
      { name: 'logits/kernel', shape: [16, 10], received: [16, 7] },
      { name: 'logits/bias', shape: [10], received: [7] },
    ],
    unused: [],
  })
  expect(weights.all.values - weights.loaded.values).toBe(170)
  const { state } = await loadCheckpoint(join(run, 'checkpoint.safetensors'))
  expect(Object.keys(values)).toHaveLength(21)
  for (const [name, value] of Object.entries(values)) expect(sameBits(value, state[name]!), name).toBe(true)
})

test('frozen layers keep the bits that they were loaded with, others learn', async () => {
  const { spec, start } = await transferred()
  const { values, parameters, frozenParameters } = await runFit(spec, data, { engine, weights: start.values })
  expect(frozenParameters).toBe(5 * 5 * 4 + 4 + 8)
  const all = Object.entries(values).filter(([name]) => !/(mask|moving\w+)$/.test(name))
  expect(parameters + frozenParameters).toBe(all.reduce((sum, [, { shape }]) => sum + sizeOf(shape), 0))
  for (const [name, value] of Object.entries(start.values))
    expect(sameBits(value, values[name]!), name).toBe(/^(conv|norm1)\//.test(name))
})

test('an interrupted transfer goes on bit for bit, without the weights that it started from', async () => {
  const { spec, start } = await transferred()
  const whole = await runFit(spec, data, { engine, weights: start.values })
  const path = join(folder, 'interrupted.safetensors')
  let interruptions = 0
  let result: FitResult | undefined
  while (!result) {
    const stop = new AbortController()
    let calls = 0
    const onEvent = (event: TrainEvent) => {
      if (event.type === 'progress' && ++calls === (interruptions % 3) + 1) stop.abort()
    }
    const from = interruptions > 0 ? { resume: await loadCheckpoint(path) } : { weights: start.values }
    const options = { engine, onEvent, signal: stop.signal, checkpoint: { path }, ...from }
    result = await runFit(spec, data, options).catch(error => {
      expect(error).toMatchObject({ name: 'Interrupted' })
      return undefined
    })
    if (!result) interruptions++
    expect(interruptions).toBeLessThan(100)
  }
  expect(interruptions).toBeGreaterThan(2)
  expect(Object.keys(result.values).sort()).toEqual(Object.keys(whole.values).sort())
  for (const [name, value] of Object.entries(whole.values))
    expect(sameBits(value, result.values[name]!), name).toBe(true)
})

describe('a specification', () => {
  test('without transfer has the hash that it had', () => {
    const spec = trainingSpec(everything(10), data)
    expect(specHash(spec)).toBe(hashJson(spec))
  })

  test('is told apart by its values, not by where they lay', async () => {
    const { spec } = await transferred()
    const weights = spec.weights!
    expect(specHash({ ...spec, weights: { ...weights, source: 'elsewhere' } })).toBe(specHash(spec))
    expect(specHash({ ...spec, weights: { ...weights, hash: '0' } })).not.toBe(specHash(spec))
    expect(specHash({ ...spec, frozen: [] })).not.toBe(specHash(spec))
  })

  test('is begun from its source, and a source that has changed is noticed', async () => {
    const { spec, start } = await transferred()
    expect(await weightsOf(spec)).toEqual(start.values)
    const once = { ...spec, epochs: 1 }
    const result = await runTrial(once, data, { engine, directory: join(folder, 'begun') })
    expect(result).toMatchObject({ frozenParameters: 112, weights: spec.weights })
    await storeTrainingImages(engine, data)

    const weights = { ...spec.weights!, hash: '0' }
    const changed = runTrial({ ...once, weights }, data, { engine, directory: join(folder, 'changed') })
    const { message, exitCode } = await rejectionOf(changed)
    expect(exitCode).toBe(1)
    expect(message).toContain(`${run}: the weights have changed since the trial was specified`)

    await rename(run, `${run}-moved`)
    const gone = rejectionOf(runTrial(spec, data, { engine, directory: join(folder, 'gone') }))
    expect((await gone).message).toContain(run)
    await rename(`${run}-moved`, run)
  })
})

describe('backbone and head', () => {
  const model = everything(10)
  const names = model.layers.map(({ name }) => name)
  const loaded = { source: 'x', hash: 'y', loaded: { tensors: 1, values: 1 }, all: { tensors: 1, values: 1 } }

  test('the head begins with what starts anew, or is the last layer with parameters', () => {
    const anew = (...layers: string[]) =>
      backboneOf(model, {
        ...loaded,
        fresh: layers.map(layer => ({ name: `${layer}/kernel`, shape: [1] })),
        unused: [],
      })
    expect(anew('attention/output')).toEqual(names.slice(0, names.indexOf('attention')))
    expect(anew('sparse', 'logits')).toEqual(names.slice(0, names.indexOf('sparse')))
    expect(anew('conv', 'logits')).toEqual(names.filter(name => name !== 'conv' && name !== 'logits'))
    expect(anew('conv')).toEqual(anew('conv', 'logits'))
    expect(anew()).toEqual(names.filter(name => name !== 'logits'))
    const whole = { ...loaded, fresh: [], unused: [] }
    expect(frozenBy('backbone', model, whole)).toEqual(anew())
  })

  test('a layer and all before it', () => {
    expect(frozenBy('none', model, undefined)).toEqual([])
    expect(frozenBy('norm1', model, undefined)).toEqual(names.slice(0, 3))
  })

  test('what cannot be says so', () => {
    const whole = { ...loaded, fresh: [], unused: [] }
    expect([
      errorOf(() => frozenBy('logits', model, whole)),
      errorOf(() => frozenBy('backbone', model, undefined)),
      errorOf(() => frozenBy('norm3', model, whole)),
      errorOf(() => backboneRate(0.1, model, undefined, [])),
      errorOf(() => backboneRate(0.1, model, whole, names)),
    ]).toMatchInlineSnapshot(`
      [
        "UsageError: freeze logits: expected at least one layer with parameters of "everything" to be left to train, received none",
        "UsageError: freeze backbone: expected weights to start from, which tell what the backbone is, received none",
        "UsageError: unknown layer to freeze "norm3"; did you mean "norm1"? known: none, backbone, and the 9 layers of "everything": rescaling_1, conv, norm1, ... dropout_1, logits",
        "UsageError: backbone learning rate 0.1: expected weights to start from, which tell what the backbone is, received none",
        "UsageError: backbone learning rate 0.1: expected a backbone that is trained, received one that is frozen",
      ]
    `)
  })

  test('weights of another architecture are refused', async () => {
    const source = await openWeights(run, 'x')
    const other = sequential([flatten(), dense({ units: 5 }), dense({ units: 10 })], {
      name: 'other',
      input: [28, 28, 1],
    })
    expect(errorOf(() => startFrom(source, other)).replace(folder, '')).toMatchInlineSnapshot(
      `"UsageError: /pretrained: weights of another architecture: 0 of the 4 tensors of "other" are there by name and shape, expected at least half; not there: dense_1/kernel [784, 5], dense_1/bias [5], dense_2/kernel [5, 10] and 1 more; the weights begin with conv/kernel [5, 5, 1, 4], conv/bias [4], norm1/gamma [4] and 20 more"`,
    )
  })
})

test('layers in the middle that only one of two networks has are another architecture', async () => {
  const source = await openWeights(run, 'x')
  const before = everything(10)
  const at = before.layers.findIndex(({ name }) => name === 'norm2')
  const { layers } = before
  const extra = { name: 'extra', layer: dense({ units: 16 }), inputs: ['sparse'] }
  const deeper = { ...before, layers: [...layers.slice(0, at), extra, ...layers.slice(at)] }
  expect(() => startFrom(source, deeper)).toThrow(
    'weights of another architecture: 21 of the 25 tensors of "everything" are there by name and shape, but layers before the last of them are in one of the two networks only: extra',
  )
  const attention = layers.findIndex(({ name }) => name === 'attention')
  const shallower = {
    ...before,
    layers: layers
      .filter((_, i) => i !== attention)
      .map(use => (use.name === layers[attention + 1]!.name ? { ...use, inputs: ['norm1'] } : use)),
  }
  expect(() => startFrom(source, shallower)).toThrow('in one of the two networks only: attention/query')
})

test('layers in the middle of another width are another architecture, for images of another size they are not', () => {
  const network = (filters: number, input: readonly [number, number, number]) =>
    sequential(
      [
        conv2d({ name: 'conv1', filters, kernelSize: 3 }),
        conv2d({ name: 'conv2', filters: 4, kernelSize: 3 }),
        flatten(),
        dense({ name: 'hidden1', units: 6 }),
        dense({ name: 'hidden2', units: 5 }),
        dense({ name: 'logits', units: 3 }),
      ],
      { name: 'chain', input },
    )
  const before = network(2, [8, 8, 1])
  const tensors = wantedLayers(before).flatMap(layer => layer.tensors)
  const layers = foveaLayers(tensors.map(({ name, shape }) => [name, zeros('float32', shape)]))
  const source = {
    source: 'before',
    file: { path: 'before', format: 'run', layers },
    model: before,
    published: false,
  } as const
  expect(() => startFrom(source, network(3, [8, 8, 1]))).toThrow(
    'before: weights of another architecture: 7 of the 10 tensors of "chain" are there by name and shape, but layers before the last of them have other numbers of outputs: conv1/kernel [3, 3, 1, 3] (they have [3, 3, 1, 2])',
  )
  const { fresh } = startFrom(source, network(2, [9, 9, 3])).weights
  expect(fresh.map(({ name }) => name)).toEqual(['conv1/kernel', 'hidden1/kernel'])
})

test('a checkpoint under another name is still a run', async () => {
  const copy = join(folder, 'copy.bin')
  await copyFile(join(run, 'checkpoint.safetensors'), copy)
  const { model, file } = await openWeights(copy, 'x')
  expect(model).toEqual(everything(7))
  expect(file.layers).toEqual((await openWeights(run, 'x')).file.layers)
  expect((await rejectionOf(openWeights('', 'x'))).message).toContain('received none')
})

describe('images of another kind', () => {
  /** A file of the weights that a network of the zoo begins with. */
  async function fileOf(name: string, image: Model['input'], classes: number): Promise<string> {
    const model = architectureNamed(name).build(image, classes)
    const { state } = compileTraining({ model, loss: crossEntropy(), optimizer: sgd(), batchSize: 1 })
    const drawn = state.map(tensor => [tensor.name, hostTensor('float32', tensor.shape, tensor.initial(1))])
    const path = join(folder, `${name}.safetensors`)
    await writeFile(path, encodeSafetensors(Object.fromEntries(drawn), {}))
    return path
  }

  test('grey ones become colour for weights that need it, resized ones fit dense layers', async () => {
    const weights = await fileOf('lenet5', [32, 32, 3], 100)
    const flags = { weights, resize: [32, 32] as const, freeze: 'backbone' }
    const { model, options, remarks } = await transferOf(flags, architectureNamed('lenet5'), data)
    expect(model.input).toEqual([28, 28, 1])
    expect(model.layers.slice(0, 2).map(({ layer }) => layer.layer)).toEqual(['resizing', 'concatenate'])
    expect(options.weights!.fresh.map(({ name }) => name)).toEqual(['logits/kernel', 'logits/bias'])
    expect(options.frozen).toContain('conv1')
    expect(remarks.map(remark => remark.replace(folder, ''))).toMatchInlineSnapshot(`
      [
        "weights of /lenet5.safetensors: matched 8 of 10 tensors (82.3 k of 83.1 k values)",
        "new: logits/kernel [84, 10] (they have [84, 100]), logits/bias [10] (they have [100])",
        "grey images are repeated as red, green and blue: the weights need 3 channels",
      ]
    `)
  })

  test('a layer that is frozen although it starts anew is named', async () => {
    const weights = await fileOf('lenet5', [28, 28, 2], 10)
    const { remarks } = await transferOf({ weights, freeze: 'conv2' }, architectureNamed('lenet5'), data)
    expect(remarks.slice(1)).toEqual([
      'new: conv1/kernel [5, 5, 1, 6] (they have [5, 5, 2, 6])',
      'frozen although new: conv1/kernel',
    ])
  })

  test("a Keras network's preprocessing, or its own range", async () => {
    const resize = [32, 32] as const
    const vgg16 = architectureNamed('vgg16')
    const { model } = await transferOf({ preprocessing: 'imagenet', resize }, vgg16, data)
    expect(model.layers.slice(0, 3).map(({ layer }) => layer.layer)).toEqual([
      'resizing',
      'concatenate',
      'caffePixels',
    ])
    const own = await transferOf({ preprocessing: 'scale', resize }, vgg16, data)
    expect(own.model.layers.map(({ layer }) => layer.layer)).not.toContain('caffePixels')
  })

  test("a file of one's own is in the network's range, which is said; a run brings its head and its range", async () => {
    const [vgg16, resize] = [architectureNamed('vgg16'), [32, 32] as const]
    const layersOf = ({ model }: { model: Model }) => model.layers.map(({ layer }) => layer.layer)
    const { model } = await transferOf({ top: 'pooling', preprocessing: 'imagenet', resize }, vgg16, data)
    const spec = trainingSpec(model, data)
    const { state } = compileTraining(spec)
    const values = Object.fromEntries(
      state
        .filter(({ kind }) => kind !== 'slot')
        .map(({ name, shape }) => [name, zeros('float32', shape)] as const),
    )
    const file = join(folder, 'vgg16.safetensors')
    await writeFile(file, encodeSafetensors(values, {}))
    const unknown = await transferOf({ weights: file, top: 'pooling', resize }, vgg16, data)
    expect(layersOf(unknown)).not.toContain('caffePixels')
    expect(unknown.remarks.at(-1)).toContain('give --preprocessing imagenet')
    const said = { weights: file, top: 'pooling', resize, preprocessing: 'imagenet' } as const
    expect((await transferOf(said, vgg16, data)).remarks.at(-1)).not.toContain('give --preprocessing')

    const directory = join(folder, 'vgg16')
    await mkdir(directory)
    await saveCheckpoint(join(directory, 'checkpoint.safetensors'), {
      spec,
      classes: data.classes,
      engine: { device: 'cpu', threads: 1, version: 'x' },
      position: {
        epoch: 1,
        step: 0,
        updates: 1,
        running: { loss: 0, correct: 0, images: 0, seconds: 0 },
        history: [],
        best: undefined,
      },
      state: values,
      best: undefined,
    })
    const again = await transferOf({ weights: directory }, vgg16, data)
    expect(again.model).toEqual(model)
    expect(again.options.weights!.fresh).toEqual([])
    expect(again.remarks.slice(1)).toMatchInlineSnapshot(`
      [
        "images are resized to 32 x 32, as those that the weights were trained on",
        "the head is one layer after pooling, as in the run",
        "pixels are prepared as for the weights published for ImageNet",
      ]
    `)
  })
})

test('on the command line: a head on a frozen backbone, then all at a low rate', {
  timeout: 90_000,
}, async () => {
  const train = async (...args: string[]) => {
    const common = ['train', '--model', 'lenet5', '--dataset', 'fashion-mnist-subset', '--threads', '1']
    const result = await fovea([...common, ...args], { cwd: folder })
    return { ...result, json: result.code === 0 ? JSON.parse(result.stdout) : undefined }
  }
  await train('--epochs', '1', '--out', 'first', '--json')
  const second = ['--weights', 'first', '--freeze', 'backbone', '--epochs', '1', '--out', 'second', '--json']
  const head = await train(...second)
  expect(head.stderr).toContain('weights of first: matched 10 of 10 tensors (61.7 k of 61.7 k values)\n')
  expect(head.stderr).toContain('850 parameters to train, 60,856 frozen, 1,800 images')
  expect(head.json).toMatchObject({
    parameters: 850,
    frozenParameters: 60_856,
    weights: { source: 'first', loaded: { tensors: 10 }, fresh: [], unused: [] },
  })
  const low = ['--learning-rate', '1e-3', '--backbone-learning-rate', '1e-4', '--epochs', '1']
  const all = await train('--weights', 'second/checkpoint.safetensors', ...low, '--out', 'third', '--json')
  expect(all.json).toMatchObject({ parameters: 61_706, spec: { backbone: { learningRate: 1e-4 } } })
  expect(all.json.test.accuracy).toBeGreaterThan(0.6)

  // Neither the run that it started from nor a weights flag is needed to go on.
  await rm(join(folder, 'second'), { recursive: true })
  const resumed = await fovea(['train', '--resume', 'third', '--epochs', '2', '--json'], { cwd: folder })
  expect(JSON.parse(resumed.stdout)).toMatchObject({ epoch: 2, weights: all.json.weights })
  expect(JSON.parse(await readFile(join(folder, 'third/result.json'), 'utf8')).epoch).toBe(2)

  expect(await train('--weights', 'second', '--out', 'fourth')).toMatchObject({ code: 2 })
  expect(await train('--weights', 'imagenet')).toMatchObject({
    code: 2,
    stderr:
      'fovea: lenet5: no weights trained on ImageNet are published for it, only for vgg16, resnet50, xception\n',
  })
  expect(await train('--resize', '0')).toMatchObject({
    code: 2,
    stderr: 'fovea: --resize: expected a size as 224 or 224x192 (height x width), received "0"\n',
  })
})
