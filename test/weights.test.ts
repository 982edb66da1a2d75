/**
 * Files of weights: test/golden/weights/, saved by Keras and PyTorch, and what is told of files that cannot
 * be used.
 */

import { readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  add,
  batchNormalization,
  connect,
  conv2d,
  dense,
  depthwiseConv2d,
  flatten,
  functional,
  type Model,
  maxPooling2d,
  relu,
  rescaling,
  separableConv2d,
  sequential,
} from '../src/nn/index.ts'
import { fromBfloat16, fromFloat16 } from '../src/util/float16.ts'
import { type HostTensor, hostTensor, zeros } from '../src/util/host-tensor.ts'
import { checkWeights, matchWeights, readWeights } from '../src/weights/index.ts'
import { encodeSafetensors } from '../src/weights/safetensors.ts'
import { rejectionOf } from './error-of.ts'
import { expectClose } from './expect-close.ts'
import { logitsOf } from './weights-logits.ts'

interface Numbers {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

interface GoldenFile {
  readonly file: string
  readonly net: 'branched' | 'chain'
  readonly images: Numbers
  readonly logits: Numbers
}

const golden = fileURLToPath(new URL('golden/', import.meta.url))
const files: readonly GoldenFile[] = JSON.parse(readFileSync(join(golden, 'weights.json'), 'utf8')).files
const goldenFile = (file: string) => join(golden, 'weights', file)

/** The net of scripts/golden/weights.py, each layer under the name that `named` gives it. */
function branched(named: (name: string) => string = name => name): Model {
  return functional({ name: 'branched', input: [8, 8, 3] }, images => {
    const pixels = connect(rescaling({ scale: 1 / 127.5, offset: -1 }), images)
    const same = { filters: 4, kernelSize: 3, padding: 'same' } as const
    const stem = connect(conv2d({ ...same, name: named('stem'), activation: 'relu' }), pixels)
    const left = connect(
      batchNormalization({ name: named('left_norm') }),
      connect(conv2d({ ...same, name: named('left') }), stem),
    )
    const right1 = connect(relu(), connect(conv2d({ ...same, name: named('right1') }), stem))
    const right = connect(
      batchNormalization({ name: named('batch_normalization') }),
      connect(conv2d({ ...same, name: named('conv2d') }), right1),
    )
    const separable = separableConv2d({ name: named('separable'), filters: 5, kernelSize: 3, useBias: false })
    const mixed = connect(separable, connect(add(), left, right))
    const maps = connect(depthwiseConv2d({ name: named('depthwise'), kernelSize: 3 }), mixed)
    return connect(dense({ name: named('logits'), units: 3 }), connect(flatten(), maps))
  })
}

/** The net that PyTorch exported. */
const chain = sequential(
  [
    rescaling({ scale: 1 / 255 }),
    conv2d({ filters: 4, kernelSize: 3, padding: 'same' }),
    batchNormalization(),
    relu(),
    maxPooling2d(),
    depthwiseConv2d({ kernelSize: 3, depthMultiplier: 2, useBias: false }),
    relu(),
    flatten(),
    dense({ units: 6, activation: 'relu' }),
    dense({ units: 3 }),
  ],
  { name: 'chain', input: [8, 8, 3] },
)

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-weights-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Writes a file, reads it as weights, and gives the message, without the folder. */
async function messageOf(name: string, bytes: Uint8Array | string): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, bytes)
  const { message } = await rejectionOf(readWeights(path))
  return message.replaceAll(folder, '.')
}

describe('the logits of the net that saved the file', () => {
  test.for(files)('$file', async ({ file, net, images, logits }) => {
    const model = net === 'branched' ? branched() : chain
    const weights = await readWeights(goldenFile(file))
    const { values, report } = matchWeights(model, weights)
    expect(report).toMatchObject({ missing: [], misshapen: [], unused: [], inserted: [] })
    const byName = ['legacy.h5', 'branched.keras', 'named.weights.h5', 'keras-1.h5'].includes(file)
    expect(report.by).toBe(byName ? 'name' : 'order')
    const expected = { shape: logits.shape, data: Float64Array.from(logits.data) }
    expectClose(await logitsOf(model, values, images), expected, 1e-5, file)
  })

  test.for(['legacy.h5', 'branched.keras', 'unnamed.weights.h5'])(
    '%s, into layers of other names',
    async file => {
      const weights = await readWeights(goldenFile(file))
      const { images, logits } = files.find(golden => golden.file === file)!
      const model = branched(name => `my/${name}`)
      const { values, report } = matchWeights(model, weights)
      expect(report).toMatchObject({ by: 'order', missing: [], unused: [], misshapen: [] })
      const expected = { shape: logits.shape, data: Float64Array.from(logits.data) }
      expectClose(await logitsOf(model, values, images), expected, 1e-5, file)
    },
  )

  test('the best epoch of a checkpoint of Fovea', async () => {
    const { values } = matchWeights(branched(), await readWeights(goldenFile('legacy.h5')))
    const path = join(folder, 'own.safetensors')
    const last = Object.fromEntries(
      Object.entries(values).map(([name, { shape }]) => [name, zeros('float32', shape)]),
    )
    const best = Object.fromEntries(Object.entries(values).map(([name, value]) => [`best/${name}`, value]))
    const slot = { 'optimizer/step': hostTensor('int64', [], [1]) }
    await writeFile(path, encodeSafetensors({ ...last, ...best, ...slot }, {}))
    const read = matchWeights(branched(), await readWeights(path))
    expect(read.report).toMatchObject({ by: 'name', missing: [], unused: [] })
    expect(read.values).toEqual(values)
  })
})

describe('what fits and what does not', () => {
  test('another head, and a tensor that the model does not have', async () => {
    const weights = await readWeights(goldenFile('legacy.h5'))
    const model = branched(name => (name === 'logits' ? 'new_head' : name))
    const { report } = matchWeights(model, weights)
    expect(report.missing).toEqual(['new_head/kernel', 'new_head/bias'])
    expect(report.unused).toEqual(['logits/kernel', 'logits/bias'])
    expect(report.inserted).toEqual([])
    checkWeights(model, weights, report)
  })

  test('a layer of the same name and another shape', async () => {
    const weights = await readWeights(goldenFile('named.weights.h5'))
    const model = sequential(
      [
        conv2d({ name: 'stem', filters: 4, kernelSize: 3 }),
        conv2d({ name: 'left', filters: 6, kernelSize: 3 }),
        flatten(),
        dense({ name: 'logits', units: 2 }),
      ],
      { input: [8, 8, 3] },
    )
    const { report } = matchWeights(model, weights)
    expect(report.matched).toEqual(['stem/kernel', 'stem/bias'])
    expect(report.misshapen[0]).toEqual({
      name: 'left/kernel',
      expected: [3, 3, 4, 6],
      received: [3, 3, 4, 4],
    })
    expect(() => checkWeights(model, { ...weights, path: 'named' }, report)).toThrow(
      'named: weights of another architecture: 2 of the 6 tensors of "model" are there by name and shape, expected at least half; not there: left/kernel [3, 3, 4, 6] (they have [3, 3, 4, 4]), left/bias [6] (they have [4]), logits/kernel [96, 2] (they have [80, 3]) and 1 more; the weights begin with layers/batch',
    )
  })

  test('another network', async () => {
    const model = sequential([flatten(), dense({ name: 'd', units: 2 })], { name: 'tiny', input: [8, 8, 1] })
    const weights = { ...(await readWeights(goldenFile('legacy.h5'))), path: 'legacy.h5' }
    expect(() => checkWeights(model, weights, matchWeights(model, weights).report)).toThrow(
      'legacy.h5: weights of another architecture: 0 of the 2 tensors of "tiny" are there by name and shape, expected at least half; not there: d/kernel [64, 2] (they have [3, 3, 3, 4]), d/bias [2] (they have [4]); the weights begin with stem/kernel [3, 3, 3, 4], stem/bias [4], right1/kernel [3, 3, 4, 4] and 19 more',
    )
  })

  test('a normalization of which one tensor is not there, and no names tell which', async () => {
    const weights = await readWeights(goldenFile('unnamed.weights.h5'))
    const cut = weights.layers.map(layer =>
      layer.kind === 'batchNormalization' ? { ...layer, tensors: layer.tensors.slice(1) } : layer,
    )
    const { report } = matchWeights(branched(), { ...weights, layers: cut })
    expect(report.missing).toEqual(
      ['left_norm', 'batch_normalization'].flatMap(name =>
        ['gamma', 'beta', 'movingMean', 'movingVariance'].map(role => `${name}/${role}`),
      ),
    )
  })

  test('a branching network by the order of ONNX', async () => {
    const weights = await readWeights(goldenFile('chain.onnx'))
    const model = branched()
    expect(() => checkWeights(model, weights, matchWeights(model, weights).report)).toThrow(
      /0 of the 22 tensors .* Of networks with branches, ONNX is matched only by the names of Fovea/,
    )
  })

  test('tensors that PyTorch named', async () => {
    const path = join(folder, 'torch.safetensors')
    const weight = hostTensor('float32', [2, 2], [1, 2, 3, 4])
    await writeFile(path, encodeSafetensors({ 'layer1.0.conv1.weight': weight }, {}))
    const weights = { ...(await readWeights(path)), path: 'torch.safetensors' }
    expect(() => checkWeights(chain, weights, matchWeights(chain, weights).report)).toThrow(
      /begin with layer1\.0\.conv1\.weight \[2, 2\]\. These are PyTorch's names: .* ONNX/,
    )
  })

  test('values that are no numbers', async () => {
    const path = join(folder, 'nan.safetensors')
    const kernel = hostTensor('float32', [2, 2], [1, 2, Number.NaN, 4])
    await writeFile(path, encodeSafetensors({ 'd/kernel': kernel }, {}))
    const weights = { ...(await readWeights(path)), path: 'nan.safetensors' }
    const model = sequential([flatten(), dense({ name: 'd', units: 2 })], { input: [1, 2, 1] })
    expect(() => matchWeights(model, weights)).toThrow(
      'nan.safetensors: "d/kernel" [2, 2]: expected finite values, received NaN',
    )
  })
})

describe('files that are not read', () => {
  test('damaged ones', async () => {
    const cut = async (file: string, part: number) => {
      const bytes = await readFile(goldenFile(file))
      return bytes.subarray(0, Math.floor(bytes.length * part))
    }
    const archive = await readFile(goldenFile('branched.keras'))
    const flipped = Uint8Array.from(archive)
    flipped[archive.length >> 1]! ^= 1
    expect([
      await messageOf('half.h5', await cut('legacy.h5', 0.5)),
      await messageOf('start.h5', await cut('legacy.h5', 0.001)),
      await messageOf('half.keras', await cut('branched.keras', 0.5)),
      await messageOf('flipped.keras', flipped),
      await messageOf('half.onnx', await cut('chain.onnx', 0.5)),
      await messageOf(
        'half.safetensors',
        encodeSafetensors({ a: hostTensor('float32', [9], new Array(9).fill(1)) }, {}).subarray(0, 90),
      ),
    ]).toMatchInlineSnapshot(`
      [
        "./half.h5: truncated file: eof = 43520, sblock->base_addr = 0, stored_eof = 87040: the file is damaged, or not an HDF5 file",
        "./start.h5: truncated file: eof = 87, sblock->base_addr = 0, stored_eof = 87040: the file is damaged, or not an HDF5 file",
        "./half.keras: End of central directory record signature not found. Either not a zip file, or file is truncated.: the archive is damaged",
        "./flipped.keras: model.weights.h5 has a wrong checksum: the archive is damaged",
        "./half.onnx: ONNX model: expected 3656 more bytes, received 1819: the file is damaged, or not an ONNX model",
        "./half.safetensors: "a": bytes 0 to 36 are not within the 2 bytes of values: the file is damaged, or not a safetensors file",
      ]
    `)
  })

  test('ones of other kinds', async () => {
    const pickle = Uint8Array.of(0x80, 2, 0x7d, 0x71, 0, 0x2e)
    expect([
      await messageOf('net.pt', pickle),
      await messageOf('empty.h5', ''),
      await messageOf('page.h5', '<!DOCTYPE html><html>not found</html>'),
      await messageOf('image.png', Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0)),
      (await rejectionOf(readWeights(join(folder, 'none.h5')))).message.replace(folder, '.'),
      (await rejectionOf(readWeights(folder))).message.replace(folder, 'folder'),
      (await rejectionOf(readWeights(goldenFile('external.onnx')))).message.replace(golden, ''),
    ]).toMatchInlineSnapshot(`
      [
        "./net.pt: a pickle (PyTorch's .pt, .pth or .bin): reading one can run any code that is in it, so Fovea does not; export the network in PyTorch instead, with torch.onnx.export(model, images, "weights.onnx", external_data=False), and give that in the place of net.pt",
        "./empty.h5: expected a file of weights: Keras (.h5, .weights.h5, .keras), safetensors or ONNX; received an empty file",
        "./page.h5: expected a file of weights: Keras (.h5, .weights.h5, .keras), safetensors or ONNX; received a text that begins with "<!DOCTYPE html><"",
        "./image.png: expected a file of weights: Keras (.h5, .weights.h5, .keras), safetensors or ONNX; received a file that begins with 89 50 4e 47 0d 0a 1a 0a",
        "./none.h5: expected a file of weights, there is none",
        "folder: cannot be read (EISDIR)",
        "weights/external.onnx: ONNX model: Fovea does not read tensors stored in another file; save the model as one file (external_data=False)",
      ]
    `)
  })

  test('an archive whose weights would fill the disk', async () => {
    const bytes = await readFile(goldenFile('branched.keras'))
    // Its entry in the directory: compressed, and 3 GiB large.
    const name = bytes.lastIndexOf('model.weights.h5')
    const entry = bytes.lastIndexOf('PK\u0001\u0002', name)
    bytes.writeUInt16LE(8, entry + 10)
    bytes.writeUInt32LE(3 * 2 ** 30, entry + 24)
    expect(await messageOf('bomb.keras', bytes)).toBe(
      './bomb.keras: expected model.weights.h5 to take at most 64 MiB in such an archive, received one that takes 3072 MiB',
    )
  })

  test('damage anywhere in an HDF5 file ends in a message, and the next file is read', async () => {
    const whole = await readFile(goldenFile('named.weights.h5'))
    const path = join(folder, 'damaged.h5')
    for (let at = 600; at < whole.length; at += 9_000) {
      const bytes = Uint8Array.from(whole)
      bytes.fill(0xff, at, at + 300)
      await writeFile(path, bytes)
      const outcome = await readWeights(path).then(
        ({ layers }) => layers.length,
        (error: Error) => error.message,
      )
      if (typeof outcome === 'string') expect(outcome).toMatch(/^.*damaged\.h5: /)
    }
    expect((await readWeights(goldenFile('named.weights.h5'))).layers.length).toBe(9)
  }, 60_000)
})

test('floats of 16 bits', () => {
  const half = Uint16Array.of(0x3c00, 0xc000, 0x7bff, 0x0001, 0x8000, 0x7c00, 0x7e00, 0x3555)
  expect([...fromFloat16(half)]).toEqual([
    1,
    -2,
    65504,
    2 ** -24,
    -0,
    Infinity,
    NaN,
    Math.fround(0.333251953125),
  ])
  const bfloat = Uint16Array.of(0x3f80, 0xc000, 0x7f80, 0x3eab)
  expect([...fromBfloat16(bfloat)]).toEqual([1, -2, Infinity, 0.333984375])
})

test('a safetensors file of 16 bits', async () => {
  const path = join(folder, 'half.safetensors')
  const header = JSON.stringify({
    'd/kernel': { dtype: 'F16', shape: [2], data_offsets: [0, 4] },
    'd/bias': { dtype: 'BF16', shape: [1], data_offsets: [4, 6] },
  })
  const values = new Uint8Array(Uint16Array.of(0x3c00, 0xc000, 0x3f80).buffer)
  const length = new Uint8Array(BigUint64Array.of(BigInt(header.length)).buffer)
  await writeFile(path, Buffer.concat([length, Buffer.from(header), values]))
  const [layer] = (await readWeights(path)).layers
  const read = layer!.tensors.map(({ name, tensor }): [string, HostTensor] => [name, tensor])
  expect(Object.fromEntries(read)).toEqual({
    'd/kernel': hostTensor('float32', [2], [1, -2]),
    'd/bias': hostTensor('float32', [1], [1]),
  })
})
