/** What a training program that runs step by step leaves, in another one, in the next run and in an engine's store. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { dense, flatten } from '../src/nn/layers/core.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { adam } from '../src/nn/optimizers.ts'
import type { Engine, Program } from '../src/runtime/engine.ts'
import type { LoadedProgram, Loader } from '../src/runtime/loaded-program.ts'
import { openEngine } from '../src/runtime/node.ts'
import type { Tensors } from '../src/runtime/protocol.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import { sameBits } from './same-bits.ts'
import { compiled, data, model } from './step-program.ts'
import { copies, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, stateAfter } from './train-with.ts'

describe('what a run leaves', () => {
  const program = compiled(adam())
  const feeds = feedsOf(program, 0, 2, 0.01, 40)
  const next = (outputs: Tensors) => stateAfter(program, outputs)
  const states = async (load: Loader, use: (loaded: LoadedProgram) => Promise<Tensors>) => {
    const loaded = await load(program.bytes, undefined)
    const result = copies(await use(loaded))
    await loaded.release()
    return result
  }

  test('may enter another program of the same state, and come back', async () => {
    const rest = compiled(adam(), 3)
    const both = async (load: Loader) => {
      const other = await load(rest.bytes, undefined)
      return states(load, async loaded => {
        const first = next(await loaded.run({ ...data, ...initialState(program), ...feeds }))
        const second = next(await other.run({ ...data, ...first, ...feedsOf(rest, 2, 1, 0.01, 40) }))
        return next(await loaded.run({ ...data, ...second, ...feeds }))
      })
    }
    expect(await both(stepped[1])).toEqual(await both(whole[1]))
  })

  test('may enter the next run in the place of something else', async () => {
    const swapped = (load: Loader) =>
      states(load, async loaded => {
        const after = next(await loaded.run({ ...data, ...initialState(program), ...feeds }))
        const [m, v] = ['momentum', 'velocity'].map(slot => `optimizer/${slot}/dense_1/kernel`)
        return next(await loaded.run({ ...data, ...after, [m!]: after[v!]!, [v!]: after[m!]!, ...feeds }))
      })
    expect(await swapped(stepped[1])).toEqual(await swapped(whole[1]))
  })
})

describe('the store of an engine', () => {
  let engine: Engine
  let loaded: Program
  const program = compiled(adam())
  const first = feedsOf(program, 0, 2, 0.01, 40)
  beforeAll(async () => {
    engine = await openEngine({ threads: 2 })
    await engine.write({ ...data })
    loaded = await engine.load(program.bytes)
  })
  beforeEach(() => engine.write(initialState(program)))
  afterAll(() => engine.close())
  const differing = (a: Tensors, b: Tensors) => Object.keys(a).filter(name => !sameBits(a[name]!, b[name]!))
  const all = () => engine.read(Object.keys(initialState(program)))

  test('what a run leaves under other names stays when the next one moves on', async () => {
    await loaded.run({ feeds: first, keep: program.keep })
    const after = await all()
    const aside = Object.fromEntries(
      Object.entries(program.keep).map(([output, name]) => [output, `kept/${name}`]),
    )
    await loaded.run({ feeds: feedsOf(program, 2, 1, 0.01, 40), keep: aside })
    expect(await all()).toEqual(after)
    await loaded.run({ feeds: feedsOf(program, 2, 1, 0.01, 40), keep: program.keep })
    const kept = await engine.read(Object.values(aside))
    expect(kept['kept/dense_1/kernel']).toEqual((await all())['dense_1/kernel'])
    expect(kept['kept/dense_1/kernel']).not.toEqual(after['dense_1/kernel'])
  })

  test('what a run leaves under other names stays when its state is written anew', async () => {
    const aside = Object.fromEntries(
      Object.entries(program.keep).map(([output, name]) => [output, `aside/${name}`]),
    )
    await loaded.run({ feeds: first, keep: aside })
    const names = Object.values(aside)
    const before = await engine.read(names)
    await engine.write(initialState(program))
    expect(differing(initialState(program), await all())).toEqual([])
    expect(differing(before, await engine.read(names))).toEqual([])
  })

  test('what is read is as it was before the next run, which may be asked at once', async () => {
    // Of more bytes than are on their way at once.
    const layers = [flatten(), dense({ units: 100_000, activation: 'relu' }), dense({ units: 3 })]
    const wide = sequential(layers, { input: [6, 6, 1], name: 'wide' })
    const large = compileTraining({ model: wide, loss: crossEntropy(), optimizer: adam(), batchSize: 8 })
    const names = large.state.map(({ name }) => name)
    const other = await engine.load(large.bytes)
    const step = (i: number) => other.run({ feeds: feedsOf(large, i, 1, 0.01, 40), keep: large.keep })
    await engine.write(initialState(large))
    await step(0)
    const before = await engine.read(names)
    const reading = engine.read(names)
    await step(1)
    expect(differing(before, await reading)).toEqual([])
    expect(differing(before, await engine.read(names))).toEqual(names)
    await other.release()
    await engine.free(names)
  })

  test('an evaluation between two runs changes nothing', async () => {
    const evaluation = await engine.load(compileEvaluation(model(), crossEntropy(), 8).bytes)
    const losses = async (isEvaluated: boolean) => {
      await engine.write(initialState(program))
      await loaded.run({ feeds: first, keep: program.keep })
      const feeds = {
        steps: hostTensor('int64', [], [1]),
        order: hostTensor('int32', [1, 8], [0, 1, 2, 3, 4, 5, 6, 7]),
      }
      if (isEvaluated) await evaluation.run({ feeds })
      return loaded.run({ feeds: feedsOf(program, 2, 3, 0.01, 40), keep: program.keep })
    }
    expect(await losses(true)).toEqual(await losses(false))
    await evaluation.release()
  })

  test('a run that fails on its way leaves no state that it was changing', async () => {
    await loaded.run({ feeds: first, keep: program.keep })
    const order = hostTensor(
      'int32',
      [2, 8],
      [...new Array<number>(8).fill(0), ...new Array<number>(8).fill(99)],
    )
    await expect(loaded.run({ feeds: { ...first, order }, keep: program.keep })).rejects.toThrow(
      /^ONNX Runtime failed to run the program: .*out of .*bounds/,
    )
    await expect(engine.read(['dense_1/kernel'])).rejects.toThrow(
      'read: no tensor is stored as "dense_1/kernel"',
    )
    await engine.write(initialState(program))
    await loaded.run({ feeds: first, keep: program.keep })
  })

  test('a run that is refused leaves the state as it was', async () => {
    const before = await all()
    const { scalars } = feedsOf(program, 0, 1, 0.01, 40)
    await expect(loaded.run({ feeds: { ...first, scalars: scalars! }, keep: program.keep })).rejects.toThrow(
      'run: input "scalars": expected a row for each of 2 steps, received 1',
    )
    expect(differing(before, await all())).toEqual([])
  })

  test('a state of another shape is refused', async () => {
    await engine.write({ 'dense_2/bias': hostTensor('float32', [4], [0, 0, 0, 0]) })
    await expect(loaded.run({ feeds: first })).rejects.toThrow(
      'run: input "dense_2/bias": expected float32 [3], received float32 [4]',
    )
  })
})
