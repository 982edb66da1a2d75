import fc from 'fast-check'
import * as ort from 'onnxruntime-node'
import { describe, expect, test } from 'vitest'
import { decodeModel } from '../src/onnx/decode.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import { formatModel } from '../src/onnx/format.ts'
import type { Attribute, OnnxGraph, OnnxModel, OnnxNode, ValueInfo } from '../src/onnx/model.ts'
import { Writer } from '../src/onnx/wire.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import { arrayTypes, type DType, type HostTensor, hostTensor, sizeOf } from '../src/util/host-tensor.ts'

const text = fc.string({ unit: 'binary', maxLength: 8 })
const integer = fc.oneof(fc.maxSafeInteger(), fc.integer({ min: -3, max: 300 }))
const dtype = fc.constantFrom(...(Object.keys(arrayTypes) as DType[]))
const float = fc.float()
const list = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 4 })

const tensor: fc.Arbitrary<HostTensor> = fc
  .tuple(dtype, fc.array(fc.nat(3), { maxLength: 3 }))
  .chain(([dtype, shape]) => {
    const size = { minLength: sizeOf(shape) * 8, maxLength: sizeOf(shape) * 8 }
    return fc.uint8Array(size).map(bytes => {
      const all = new arrayTypes[dtype](bytes.slice().buffer)
      return { dtype, shape, data: all.slice(0, sizeOf(shape)) as HostTensor['data'] }
    })
  })

const valueInfo: fc.Arbitrary<ValueInfo> = fc.record({
  name: text,
  dtype,
  shape: fc.option(list(fc.oneof(fc.nat(), text)), { nil: undefined }),
})

function graph(depth: number): fc.Arbitrary<OnnxGraph> {
  const attributes: fc.Arbitrary<Attribute>[] = [
    fc.record({ int: integer }),
    fc.record({ float }),
    fc.record({ string: text }),
    fc.record({ ints: list(integer) }),
    fc.record({ floats: list(float) }),
    fc.record({ strings: list(text) }),
    fc.record({ tensor }),
  ]
  if (depth > 0) attributes.push(fc.record({ graph: graph(depth - 1) }))
  const node: fc.Arbitrary<OnnxNode> = fc.record(
    {
      op: fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }),
      domain: text,
      name: text,
      inputs: list(text),
      outputs: list(text),
      attributes: fc.dictionary(text, fc.oneof(...attributes), { maxKeys: 3, noNullPrototype: true }),
    },
    { requiredKeys: ['op', 'inputs', 'outputs', 'attributes'] },
  )
  return fc.record({
    name: text,
    nodes: list(node),
    initializers: list(fc.record({ name: text, tensor })),
    inputs: list(valueInfo),
    outputs: list(valueInfo),
  })
}

const model: fc.Arbitrary<OnnxModel> = fc.record(
  {
    irVersion: fc.nat(20),
    producer: text,
    opsets: list(fc.record({ domain: text, version: fc.nat() })),
    metadata: fc.dictionary(text, text, { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
    graph: graph(2),
  },
  { requiredKeys: ['irVersion', 'producer', 'opsets', 'graph'] },
)

/** y = x * 2^count, by a Loop that also collects the steps. */
const loop: OnnxModel = {
  irVersion: 9,
  producer: 'fovea',
  opsets: [
    { domain: '', version: 18 },
    { domain: 'com.microsoft', version: 1 },
  ],
  metadata: { purpose: 'test' },
  graph: {
    name: 'powers',
    nodes: [
      {
        op: 'Loop',
        inputs: ['count', '', 'x'],
        outputs: ['y', 'steps'],
        attributes: {
          body: {
            graph: {
              name: 'body',
              nodes: [
                { op: 'Identity', inputs: ['more'], outputs: ['more_next'], attributes: {} },
                {
                  op: 'Mul',
                  name: 'double',
                  inputs: ['state', 'two'],
                  outputs: ['state_next'],
                  attributes: {},
                },
                {
                  op: 'FusedMatMul',
                  domain: 'com.microsoft',
                  inputs: ['state_next', 'state_next'],
                  outputs: ['square'],
                  attributes: { alpha: { float: 0.1 }, transA: { int: 1 } },
                },
              ],
              initializers: [],
              inputs: [
                { name: 'i', dtype: 'int64', shape: [] },
                { name: 'more', dtype: 'bool', shape: [] },
                { name: 'state', dtype: 'float32', shape: undefined },
              ],
              outputs: [
                { name: 'more_next', dtype: 'bool', shape: [] },
                { name: 'state_next', dtype: 'float32', shape: undefined },
                { name: 'square', dtype: 'float32', shape: undefined },
              ],
            },
          },
        },
      },
    ],
    initializers: [
      { name: 'two', tensor: hostTensor('float32', [1], [2]) },
      {
        name: 'unused',
        tensor: hostTensor(
          'float32',
          [3, 4],
          Array.from({ length: 12 }, (_, i) => i / 3),
        ),
      },
    ],
    inputs: [
      { name: 'count', dtype: 'int64', shape: [] },
      { name: 'x', dtype: 'float32', shape: ['n', 1] },
    ],
    outputs: [
      { name: 'y', dtype: 'float32', shape: ['n', 1] },
      { name: 'steps', dtype: 'float32', shape: ['count', 1, 1] },
    ],
  },
}

describe('encodeModel and decodeModel', () => {
  test('any model survives', () => {
    fc.assert(
      fc.property(model, model => {
        const bytes = encodeModel(model)
        expect(decodeModel(bytes)).toEqual(model)
        // Files are read into Buffers, whose slice() is not that of a Uint8Array.
        expect(decodeModel(Buffer.concat([Buffer.of(1), bytes]).subarray(1))).toEqual(model)
      }),
    )
  })

  test('numbers at the edges survive', () => {
    const attributes: OnnxNode['attributes'] = {
      ints: { ints: [0, 127, 128, -1, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER] },
      floats: { floats: [0, -0, NaN, Infinity, -Infinity, 2 ** -149, Math.fround(0.1)] },
      nothing: { ints: [] },
      int64: {
        tensor: { dtype: 'int64', shape: [2], data: BigInt64Array.of(2n ** 63n - 1n, -(2n ** 63n)) },
      },
    }
    const nodes = [{ op: 'Op', inputs: [], outputs: [], attributes }]
    const extremes = { ...loop, graph: { ...loop.graph, nodes } }
    expect(decodeModel(encodeModel(extremes))).toStrictEqual(extremes)
  })

  test('a large initializer is copied once', () => {
    const data = new Float32Array(25_000_000).fill(0.5)
    const initializers = [{ name: 'w', tensor: { dtype: 'float32', shape: [data.length], data } as const }]
    const bytes = encodeModel({ ...loop, graph: { ...loop.graph, initializers } })
    expect(bytes.length).toBeGreaterThan(100_000_000)
    const read = decodeModel(bytes).graph.initializers[0]!.tensor
    expect(Buffer.compare(Buffer.from(read.data.buffer), Buffer.from(data.buffer))).toBe(0)
  })

  test('ONNX Runtime runs an encoded Loop', async () => {
    const session = await ort.InferenceSession.create(encodeModel(loop), { logSeverityLevel: 3 })
    const count = new ort.Tensor('int64', BigInt64Array.of(3n), [])
    const { y, steps } = await session.run({
      count,
      x: new ort.Tensor('float32', Float32Array.of(1, 3), [2, 1]),
    })
    expect([...(y!.data as Float32Array)]).toEqual([8, 24])
    // 0.1 * (2^i, 3 * 2^i)^T (2^i, 3 * 2^i) = 4^i
    expect([...(steps!.data as Float32Array)]).toEqual([4, 16, 64])
    await session.release()
  })

  test('refuses what the format cannot hold', () => {
    const withInt = (int: number) => ({
      ...loop,
      graph: { ...loop.graph, nodes: [{ op: 'Op', inputs: [], outputs: [], attributes: { int: { int } } }] },
    })
    expect(() => encodeModel(withInt(0.5))).toThrow(UsageError)
    expect(() => encodeModel(withInt(2 ** 53))).toThrow('received 9007199254740992')
    const short = { name: 'w', tensor: { ...hostTensor('float32', [2], [1, 2]), shape: [3] } }
    expect(() => encodeModel({ ...loop, graph: { ...loop.graph, initializers: [short] } })).toThrow(
      'ONNX model: tensor "w" [3]: expected 3 values, received 2',
    )
  })
})

describe('decodeModel of the files of others', () => {
  /** A model with one initializer, written field by field. */
  function withTensor(write: (tensor: Writer) => void): Uint8Array {
    const tensor = new Writer()
    tensor.string(8, 'w')
    write(tensor)
    const graph = new Writer()
    graph.message(5, tensor)
    const model = new Writer()
    model.int(1, 8)
    model.string(99, 'a field of the future')
    model.float(98, 1)
    model.message(7, graph)
    return model.finish()
  }
  const only = (bytes: Uint8Array) => decodeModel(bytes).graph.initializers[0]!.tensor

  const lists: [DType, number, (tensor: Writer) => void, number[]][] = [
    ['float32', 1, tensor => tensor.floats(4, [1, -2.5]), [1, -2.5]],
    ['float32', 1, tensor => [1, -2.5].map(value => tensor.float(4, value)), [1, -2.5]],
    ['int32', 6, tensor => tensor.ints(5, [1, -2]), [1, -2]],
    ['int32', 6, tensor => [1, -2].map(value => tensor.int(5, value)), [1, -2]],
    ['uint8', 2, tensor => tensor.ints(5, [1, 255]), [1, 255]],
    ['bool', 9, tensor => tensor.ints(5, [1, 0]), [1, 0]],
    ['int64', 7, tensor => tensor.ints(7, [-1, 2 ** 40]), [-1, 2 ** 40]],
    ['uint32', 12, tensor => tensor.ints(11, [1, 2 ** 32 - 1]), [1, 2 ** 32 - 1]],
    ['float64', 11, tensor => tensor.bytes(10, new Uint8Array(Float64Array.of(0.1, -2).buffer)), [0.1, -2]],
  ]
  test.each(lists)('typed list of %s', (dtype, type, write, values) => {
    const bytes = withTensor(tensor => {
      // Older writers do not pack the extents.
      tensor.int(1, 1)
      tensor.int(1, 2)
      tensor.int(2, type)
      write(tensor)
    })
    expect(only(bytes)).toEqual(hostTensor(dtype, [1, 2], values))
  })

  test('refuses what it would misread', () => {
    const half = withTensor(tensor => tensor.int(2, 10))
    expect(() => decodeModel(half)).toThrow(
      'ONNX model: Fovea does not read element type 10 of tensor "w" []',
    )
    const external = withTensor(tensor => tensor.int(14, 1))
    expect(() => decodeModel(external)).toThrow(
      'ONNX model: Fovea does not read tensors stored in another file',
    )
    const short = withTensor(tensor => {
      tensor.ints(1, [1e9, 1e9])
      tensor.int(2, 1)
      tensor.bytes(9, new Uint8Array(4))
    })
    expect(() => decodeModel(short)).toThrow(
      /tensor "w" .* bytes of float32, received 4: the file is damaged/,
    )
  })

  test('any damage is one clear error, or another model', () => {
    const sound = encodeModel(loop)
    for (let length = 0; length < sound.length; length++)
      expect(failure(sound.subarray(0, length)) ?? 'a model').toMatch(/^ONNX model: |^a model$/)
    expect(failure(new Uint8Array(0))).toBe(
      'ONNX model: it has no graph: the file is damaged, or not an ONNX model',
    )
    fc.assert(
      fc.property(fc.nat(sound.length - 1), fc.nat(255), (at, byte) => {
        const damaged = sound.slice()
        damaged[at] = byte
        expect(failure(damaged) ?? 'a model').toMatch(/^ONNX model: |^a model$/)
      }),
    )
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), bytes => void failure(bytes)))
  })

  test('refuses graphs nested so deep that they could exhaust the stack', () => {
    let graph = new Writer()
    for (let depth = 0; depth < 100; depth++) {
      const attribute = new Writer()
      attribute.message(6, graph)
      const node = new Writer()
      node.string(4, 'If')
      node.message(5, attribute)
      graph = new Writer()
      graph.message(1, node)
    }
    const model = new Writer()
    model.int(1, 8)
    model.message(7, graph)
    expect(failure(model.finish())).toMatch(/nested more than 64 deep/)
  })

  function failure(bytes: Uint8Array): string | undefined {
    try {
      decodeModel(bytes)
      return undefined
    } catch (error) {
      if (error instanceof FoveaError) return error.message
      throw error
    }
  }
})

test('formatModel', () => {
  expect(formatModel(loop)).toMatchInlineSnapshot(`
    "ir 9, opset 18, opset com.microsoft 1, producer fovea
    purpose: "test"
    graph powers(count: int64[], x: float32[n, 1]) -> (y: float32[n, 1], steps: float32[count, 1, 1])
      two = float32[1] {2}
      unused = float32[3, 4] {0, 0.333333, 0.666667, 1, 1.33333, 1.66667, 2, 2.33333, ...}
      y, steps = Loop(count, _, x)
        body: body(i: int64[], more: bool[], state: float32) -> (more_next: bool[], state_next: float32, square: float32)
          more_next = Identity(more)
          state_next = Mul(state, two)
          square = com.microsoft.FusedMatMul(state_next, state_next) {alpha=0.1, transA=1}"
  `)
})
