/** What every engine must do, whatever platform it runs on. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxGraph, OnnxNode, ValueInfo } from '../src/onnx/model.ts'
import type { Engine, EngineOptions } from '../src/runtime/engine.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import { arrayTypes, type DType, type HostTensor, hostTensor, toNumbers } from '../src/util/host-tensor.ts'

const value = (name: string, dtype: DType, ...shape: (number | string)[]): ValueInfo => ({
  name,
  dtype,
  shape,
})

const node = (op: string, inputs: string[], outputs: string[], attributes: OnnxNode['attributes'] = {}) => ({
  op,
  inputs,
  outputs,
  attributes,
})

function programOf(graph: Partial<OnnxGraph>): Uint8Array {
  return encodeModel({
    irVersion: 9,
    producer: 'fovea',
    opsets: [{ domain: '', version: 18 }],
    graph: { name: 'g', nodes: [], initializers: [], inputs: [], outputs: [], ...graph },
  })
}

/** state' = state + step, and their product. */
export const accumulate = programOf({
  nodes: [node('Add', ['state', 'step'], ['next']), node('Mul', ['state', 'step'], ['product'])],
  inputs: [value('state', 'float32', 2), value('step', 'float32', 2)],
  outputs: [value('next', 'float32', 2), value('product', 'float32', 2)],
})

/** `count` products of a [size, size] matrix with a rotation by a small angle in each plane of neighbours. */
export function repeatedMatMul(size: number): Uint8Array {
  const rotation = new Float32Array(size * size)
  for (let i = 0; i < size; i++) {
    rotation[i * size + i] = Math.cos(0.1)
    rotation[i * size + (i ^ 1)] = i % 2 ? Math.sin(0.1) : -Math.sin(0.1)
  }
  const body: OnnxGraph = {
    name: 'body',
    nodes: [node('MatMul', ['y', 'r'], ['y_next']), node('Identity', ['more'], ['more_next'])],
    initializers: [],
    inputs: [value('i', 'int64'), value('more', 'bool'), value('y', 'float32', size, size)],
    outputs: [value('more_next', 'bool'), value('y_next', 'float32', size, size)],
  }
  return programOf({
    nodes: [node('Loop', ['count', '', 'x'], ['y_last'], { body: { graph: body } })],
    initializers: [{ name: 'r', tensor: { dtype: 'float32', shape: [size, size], data: rotation } }],
    inputs: [value('count', 'int64'), value('x', 'float32', size, size)],
    outputs: [value('y_last', 'float32', size, size)],
  })
}

const pair = (...values: [number, number]) => hostTensor('float32', [2], values)

async function failure(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => expect.unreachable('it should have failed'),
    (error: Error) => error,
  )
}

export function testEngine(name: string, openEngine: (options?: EngineOptions) => Promise<Engine>): void {
  describe(`engine: ${name}`, () => {
    let engine: Engine
    beforeAll(async () => {
      engine = await openEngine({ threads: 1 })
    })
    afterAll(() => engine.close())

    test('says what it is', () => {
      expect(engine).toMatchObject({ device: 'cpu', threads: 1 })
      expect(engine.version).toMatch(/^onnxruntime-\w+ \d+\.\d+\.\d+$/)
    })

    test('keeps state from run to run, and returns what is not kept', async () => {
      const program = await engine.load(accumulate)
      expect(program).toMatchObject({ inputs: ['state', 'step'], outputs: ['next', 'product'] })
      await engine.write({ state: pair(0, 1) })
      for (let run = 1; run <= 3; run++) {
        const results = await program.run({ feeds: { step: pair(1, 2) }, keep: { next: 'state' } })
        expect(Object.keys(results)).toEqual(['product'])
        expect(toNumbers(results.product!)).toEqual([run - 1, 2 * (2 * run - 1)])
      }
      const { state } = await engine.read(['state'])
      expect(state).toEqual(pair(3, 7))
      await program.release()
      expect(await failure(program.run({ feeds: { step: pair(1, 2) } }))).toBeInstanceOf(UsageError)
    })

    test('binds an input to a stored tensor of another name', async () => {
      const program = await engine.load(accumulate)
      await engine.write({ 'a/state': pair(1, 2), step: pair(10, 20) })
      const { next } = await program.run({ bind: { state: 'a/state' } })
      expect(next).toEqual(pair(11, 22))
      expect((await program.run({ bind: { state: 'step', step: 'step' } })).next).toEqual(pair(20, 40))
    })

    test('stores a copy, replaces it, and forgets it', async () => {
      const tensor = pair(1, 2)
      const written = engine.write({ copy: tensor })
      tensor.data[0] = 5
      await written
      expect((await engine.read(['copy'])).copy).toEqual(pair(1, 2))
      await engine.write({ copy: hostTensor('int32', [1], [7]) })
      expect((await engine.read(['copy'])).copy).toEqual(hostTensor('int32', [1], [7]))
      await engine.free(['copy'])
      expect((await failure(engine.read(['copy']))).message).toMatch(/^read: no tensor is stored as "copy"; /)
      expect(await failure(engine.free(['copy']))).toBeInstanceOf(UsageError)
    })

    test.each(Object.keys(arrayTypes) as DType[])('takes and gives %s', async dtype => {
      const program = await engine.load(
        programOf({
          nodes: [node('Reshape', ['x', 'shape'], ['y'])],
          initializers: [{ name: 'shape', tensor: hostTensor('int64', [1], [-1]) }],
          inputs: [value('x', dtype, 'n', 2)],
          outputs: [value('y', dtype, 'm')],
        }),
      )
      const values = dtype === 'bool' ? [1, 0, 0, 1] : [3, 0, 250, 1]
      const x = hostTensor(dtype, [2, 2], values)
      const flat = hostTensor(dtype, [4], values)
      expect(await program.run({ feeds: { x } })).toEqual({ y: flat })
      await engine.write({ x })
      await program.run({ keep: { y: 'kept' } })
      expect(await engine.read(['x', 'kept'])).toEqual({ x, kept: flat })
      // An empty batch is a batch.
      const none = await program.run({ feeds: { x: hostTensor(dtype, [0, 2], []) } })
      expect(none).toEqual({ y: hostTensor(dtype, [0], []) })
    })

    test('tells what the nodes of each run took', async () => {
      const size = 16
      const program = await engine.load(repeatedMatMul(size), { profile: true })
      const x = hostTensor('float32', [size, size], new Array(size * size).fill(1))
      const runOf = (count: number) => program.run({ feeds: { count: hostTensor('int64', [], [count]), x } })
      const unused = await engine.load(repeatedMatMul(size), { profile: true })
      expect(await unused.profile()).toEqual([])
      await unused.release()
      const plain = await engine.load(repeatedMatMul(size))
      const feeds = { count: hostTensor('int64', [], [5]), x }
      await runOf(2)
      expect(await runOf(5)).toEqual(await plain.run({ feeds }))
      const runs = await program.profile()
      expect(runs).toHaveLength(2)
      const [first, second] = runs.map(({ nodes }) => nodes.find(({ op }) => op === 'MatMul')!)
      const square = { dtype: 'float32', shape: [size, size] }
      // The rotation is a constant.
      expect(first).toMatchObject({ calls: 2, inputs: [square], outputs: [square] })
      expect(second!.calls).toBe(5)
      // What the body takes, the loop takes too, and the run.
      for (const { seconds, nodes } of runs) {
        const loop = nodes.find(({ op }) => op === 'Loop')!
        const body = nodes.filter(node => node.loop !== undefined)
        expect(new Set(body.map(node => node.loop))).toEqual(new Set([loop.name]))
        expect(loop).toMatchObject({ calls: 1, loop: undefined })
        expect(body.reduce((sum, node) => sum + node.seconds, 0)).toBeLessThanOrEqual(loop.seconds)
        expect(loop.seconds).toBeLessThanOrEqual(seconds)
      }
      // Once told, it only runs.
      expect(await runOf(5)).toEqual(await plain.run({ feeds }))
      const again = await failure(program.profile())
      expect(again).toBeInstanceOf(UsageError)
      expect(again.message).toBe(
        'profile: expected a program loaded with "profile" whose profile was not yet taken, received another',
      )
      expect(await failure(plain.profile())).toBeInstanceOf(UsageError)
      // Unread, it goes with its program.
      const unread = await engine.load(accumulate, { profile: true })
      await unread.release()
      await program.release()
    })

    test('stores a tensor larger than one message', async () => {
      const data = Float32Array.from({ length: 5_000_001 }, (_, i) => i)
      const large: HostTensor = { dtype: 'float32', shape: [data.length], data }
      await engine.write({ large })
      const read = await engine.read(['large'])
      expect(Buffer.compare(Buffer.from(read.large!.data.buffer), Buffer.from(data.buffer))).toBe(0)
      await engine.free(['large'])
    })

    test.each([
      ['at the end', 5_000_001, 3],
      ['everywhere', 5_000_001, 0],
      ['and nothing', 0, 0],
    ])('stores zeros %s', async (_where, length, others) => {
      const data = new Float32Array(length).fill(0.5, 0, others)
      const zeros: HostTensor = { dtype: 'float32', shape: [length], data }
      // In the place of others: what was there must not shine through.
      await engine.write({ zeros: { ...zeros, data: new Float32Array(length).fill(9) } })
      await engine.write({ zeros })
      const read = await engine.read(['zeros'])
      expect(Buffer.compare(Buffer.from(read.zeros!.data.buffer), Buffer.from(data.buffer))).toBe(0)
      await engine.free(['zeros'])
    })

    test('answers in the order of the calls', async () => {
      const program = await engine.load(accumulate)
      const write = (step: number) => engine.write({ order: pair(step, step) })
      const calls = [1, 2, 3].flatMap(step => [
        write(step),
        program.run({ bind: { state: 'order' }, feeds: { step: pair(0, 0) } }).then(({ next }) => next),
      ])
      expect(await Promise.all(calls)).toEqual([1, 2, 3].flatMap(step => [undefined, pair(step, step)]))
    })

    test('refuses wrong calls and stays usable', async () => {
      const program = await engine.load(accumulate)
      await engine.write({ state: pair(0, 0) })
      const step = pair(1, 1)
      const wrong = [
        program.run({ feeds: { step, other: step } }),
        program.run({ feeds: { step }, bind: { step: 'state' } }),
        program.run({ feeds: { step }, bind: { state: 'nowhere' } }),
        program.run({ feeds: { step }, keep: { last: 'state' } }),
        program.run({ feeds: { step }, keep: { next: 'state', product: 'state' } }),
        program.run({ feeds: { step: hostTensor('float32', [3], [1, 2, 3]) } }),
        program.run({ feeds: { step: hostTensor('float32', [2, 1], [1, 2]) } }),
        program.run({ feeds: { step: hostTensor('int32', [2], [1, 2]) } }),
        program.run({ feeds: { step: { ...step, shape: [3] } } }),
        program.run({ feeds: { step: { ...step, dtype: 'int32' } } }),
        engine.write({ state: { ...step, dtype: 'half' as DType } }),
      ]
      const errors = await Promise.all(wrong.map(failure))
      for (const error of errors) expect(error).toBeInstanceOf(UsageError)
      const messages = errors.map(({ message }) => message.replace(/; stored: .*/, '; stored: ...'))
      expect(messages).toMatchInlineSnapshot(`
        [
          "run: the program has no input "other"; it has: state, step",
          "run: input "step" is given twice",
          "run: input "state": no tensor is stored as "nowhere"; stored: ...",
          "run: the program has no output "last"; it has: next, product",
          "run: stored name "state" is given twice",
          "run: input "step": expected float32 [2], received float32 [3]",
          "run: input "step": expected float32 [2], received float32 [2, 1]",
          "run: input "step": expected float32 [2], received int32 [2]",
          "run: input "step": expected 3 values for the shape [3], received 2",
          "run: input "step": int32 expects a Int32Array, received a Float32Array",
          "write: "state": expected one of float32, float64, int32, int64, uint8, uint32, bool, received half",
        ]
      `)
      expect((await program.run({ feeds: { step } })).next).toEqual(step)
    })

    test('refuses bytes that are no program, and reports a run that fails', async () => {
      const garbage = await failure(engine.load(Uint8Array.of(1, 2, 3, 4)))
      expect(garbage).toBeInstanceOf(FoveaError)
      expect(garbage.message).toMatch(/^ONNX Runtime refuses the program: \S/)
      const program = await engine.load(
        programOf({
          nodes: [node('Add', ['x', 'y'], ['z'])],
          inputs: [value('x', 'float32', 'a'), value('y', 'float32', 'b')],
          outputs: [value('z', 'float32', 'c')],
        }),
      )
      const x = hostTensor('float32', [2], [1, 2])
      const y = hostTensor('float32', [3], [1, 2, 3])
      const error = await failure(program.run({ feeds: { x, y }, keep: { z: 'kept' } }))
      expect(error).toBeInstanceOf(FoveaError)
      expect(error.message).toMatch(/^ONNX Runtime failed to run the program: .*Add node/)
      expect(error.message).not.toContain('\n')
      expect((await program.run({ feeds: { x, y: x } })).z).toEqual(pair(2, 4))
    })

    test('leaves the caller free while a program runs', async () => {
      const program = await engine.load(repeatedMatMul(128))
      let ticks = 0
      const timer = setInterval(() => ticks++, 5)
      const started = performance.now()
      const x = hostTensor('float32', [128, 128], new Float32Array(128 * 128).fill(1))
      await program.run({ feeds: { count: hostTensor('int64', [], [2000]), x } })
      clearInterval(timer)
      expect(ticks).toBeGreaterThan((performance.now() - started) / 50)
    })

    test('flushes denormal numbers to zero, in every engine', async () => {
      const other = await openEngine({ threads: 1 })
      for (const one of [engine, other]) {
        const program = await one.load(accumulate)
        const { product } = await program.run({ feeds: { state: pair(1e-30, 1), step: pair(1e-10, 1) } })
        expect(toNumbers(product!)).toEqual([0, 1])
      }
      await other.close()
    })

    test('gives the same bits, over runs and over engines', async () => {
      const data = Float32Array.from({ length: 64 * 64 }, (_, i) => Math.sin(i * i))
      const feeds = {
        count: hostTensor('int64', [], [50]),
        x: { dtype: 'float32', shape: [64, 64], data } satisfies HostTensor,
      }
      const bits: string[] = []
      for (const one of [engine, await openEngine({ threads: 1 })]) {
        const program = await one.load(repeatedMatMul(64))
        for (let run = 0; run < 2; run++) {
          const { y_last } = await program.run({ feeds })
          bits.push(Buffer.from(y_last!.data.buffer).toString('base64'))
        }
        if (one !== engine) await one.close()
      }
      expect(new Set(bits).size).toBe(1)
    })

    test('gives the same bits, wherever in a message the values lie', async () => {
      const program = await engine.load(
        programOf({
          nodes: [node('ReduceSum', ['x'], ['sum']), node('Identity', ['pad'], ['same'])],
          inputs: [value('pad', 'uint8', 'n'), value('x', 'float32', 1003)],
          outputs: [value('sum', 'float32', 1), value('same', 'uint8', 'n')],
        }),
      )
      const data = Float32Array.from({ length: 1003 }, (_, i) => Math.sin(i * i) * Math.exp(3 * Math.cos(i)))
      const x: HostTensor = { dtype: 'float32', shape: [1003], data }
      const sums = new Set<number>()
      for (let length = 0; length < 16; length++) {
        const pad = hostTensor('uint8', [length], new Uint8Array(length))
        sums.add(toNumbers((await program.run({ feeds: { pad, x } })).sum!)[0]!)
      }
      await engine.write({ x })
      const pad = hostTensor('uint8', [0], [])
      sums.add(toNumbers((await program.run({ feeds: { pad } })).sum!)[0]!)
      expect(sums.size).toBe(1)
    })

    test('finishes what was asked before it closes, and refuses what comes after', async () => {
      const other = await openEngine({ threads: 1 })
      const program = await other.load(repeatedMatMul(64))
      const x = hostTensor('float32', [64, 64], new Float32Array(64 * 64))
      const running = program.run({ feeds: { count: hostTensor('int64', [], [2000]), x } })
      const closing = other.close()
      expect(Object.keys(await running)).toEqual(['y_last'])
      await closing
      await other.close()
      expect((await failure(other.read(['x']))).message).toBe('the engine is closed')
      expect((await failure(program.run())).message).toBe('the engine is closed')
    })

    test('refuses options that make no sense', async () => {
      const errors = await Promise.all([
        failure(openEngine({ threads: 0 })),
        failure(openEngine({ threads: 99_999 })),
        failure(openEngine({ device: 'gpu' as 'cuda' })),
      ])
      for (const error of errors) expect(error).toBeInstanceOf(UsageError)
      expect(errors.map(({ message }) => message)).toEqual([
        'openEngine: threads must be a whole number of at least 1, received 0',
        'openEngine: threads must be a number between 1 and 1024, received 99999',
        'unknown device "gpu"; did you mean "webgpu"? known: cpu, cuda, webgpu',
      ])
    })
  })
}
