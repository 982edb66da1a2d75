/** What a step is given where it lies is what nodes would have copied. */
import { describe, expect, test } from 'vitest'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import { planSteps, tasksOf } from '../src/runtime/steps/plan.ts'
import { isKernel, namesReadBy } from '../src/runtime/steps/task.ts'
import { type HostTensor, hostTensor, type Shape } from '../src/util/host-tensor.ts'
import { loopModel, type NodeBuilder, nodeBuilder, waves } from './loop-model.ts'
import { expectSame, resultsOf, stepped, whole } from './step-runs.ts'

const crew = { threads: 2, isMeasured: false }

interface Made {
  /** Of each state; undefined: the nodes give it by its name. */
  readonly next: readonly (string | undefined)[]
  readonly seen: { readonly value: string; readonly shape: readonly number[] }
}

/** A loop whose states all have one shape; of `data` each step has a row. */
function modelOf(
  shape: Shape,
  build: (own: NodeBuilder) => Made,
  data: readonly (number | string)[] = ['rows'],
): OnnxModel {
  const own = nodeBuilder()
  const { next, seen } = build(own)
  const nodes = [
    ...own.nodes,
    ...next.flatMap((value, i): OnnxNode[] =>
      value === undefined ? [] : [{ op: 'Identity', inputs: [value], outputs: [`n${i}`], attributes: {} }],
    ),
  ]
  const states = next.map((_, i) => 'abc'[i]!)
  return loopModel({ nodes, states, shape, data, seen, initializers: own.constants })
}

const inputsOf = (shape: Shape, others: Readonly<Record<string, HostTensor>>) => {
  const { steps, data, a } = waves(shape, 5)
  return { steps: steps!, data: data!, a: a!, ...others }
}

async function expectSameRuns(model: OnnxModel, inputs: Record<string, HostTensor>): Promise<void> {
  const bytes = encodeModel(model)
  const expected = await resultsOf(whole[1], bytes, inputs)
  for (const threads of [1, 2] as const) {
    const loaded = await stepped[threads](bytes, undefined)
    for (let run = 0; run < 10; run++) expectSame(await loaded.run(inputs), expected, 1e-6)
    await loaded.release()
  }
}

const number = (own: NodeBuilder, value: number) => own.constant(hostTensor('float32', [], [value]))
const opsOf = (model: OnnxModel) =>
  planSteps(model, crew)!.phases.flatMap(phase =>
    'graph' in phase ? phase.graph.nodes.map(({ op }) => op) : [],
  )

describe('pieces of a state', () => {
  const shape = [1024]

  test('are read where they lie, and not while their state is written', async () => {
    const model = modelOf(shape, own => {
      const [first, factor, rest] = own.emit('Split', ['s0', own.ints(1000, 1, 23)], { axis: { int: 0 } }, 3)
      const [seen] = own.emit('Softmax', [first!])
      own.emit('Softmax', [rest!])
      const [faded] = own.emit('Mul', ['s0', number(own, 0.5)])
      const [one] = own.emit('Reshape', [factor!, own.ints()])
      const [scaled] = own.emit('Mul', ['s1', one!])
      return { next: [faded!, scaled!], seen: { value: seen!, shape: [1000] } }
    })
    const plan = planSteps(model, crew)!
    expect(plan.pieces.map(({ state, at, value }) => [state, at, value.shape])).toEqual([
      ['s0', 0, [1000]],
      ['s0', 1000, [1]],
      ['s0', 1001, [23]],
    ])
    expect(opsOf(model)).not.toContain('Split')
    const updates = tasksOf(plan.phases).filter(task => isKernel(task) && task.updates)
    const pieces = new Set(plan.pieces.map(({ value }) => value.name))
    expect(updates).toHaveLength(2)
    expect(updates.flatMap(namesReadBy).filter(name => pieces.has(name))).toEqual([])
    await expectSameRuns(model, inputsOf(shape, { b: waves(shape, 5).data! }))
  })

  test('are not read after the updates, where a sum over another state is', async () => {
    const large = [65_536]
    const model = modelOf(large, own => {
      const [, last] = own.emit('Split', ['s0', own.ints(65_535, 1)], { axis: { int: 0 } }, 2)
      const [norm] = own.emit('ReduceSumSquare', ['s1'], { keepdims: { int: 0 } })
      const [seen] = own.emit('Mul', [norm!, last!])
      const faded = ['s0', 's1'].map(state => own.emit('Mul', [state, number(own, 0.75)])[0]!)
      return { next: faded, seen: { value: seen!, shape: [1] } }
    })
    expect(planSteps(model, crew)!.pieces).toHaveLength(2)
    await expectSameRuns(model, inputsOf(large, { b: waves(large, 5).data! }))
  })

  test('are read by tasks before the updates, which else run beside them', async () => {
    const [images, units] = [64, 256]
    const build = (isOfState: boolean) => (own: NodeBuilder) => {
      const [first] = own.emit('Split', ['s0', own.ints(units, 1024 - units)], { axis: { int: 0 } }, 2)
      const weights = own.constant(waves([units, units], 1).data!)
      const [hidden] = own.emit('MatMul', ['data', weights])
      const [most] = own.emit('ReduceMax', [hidden!, own.ints(0)], { keepdims: { int: 0 } })
      const [seen] = own.emit('Concat', [most!, isOfState ? first! : most!], { axis: { int: 0 } })
      const [half] = own.emit('Mul', ['s0', number(own, 0.5)])
      return { next: [half!], seen: { value: seen!, shape: [2 * units] } }
    }
    const besideUpdates = (model: OnnxModel) => {
      const last = planSteps(model, crew)!.phases.at(-1)!
      return 'stages' in last ? last.stages.at(-1)!.filter(task => !isKernel(task)) : []
    }
    const model = modelOf(shape, build(true), [images, units])
    expect(besideUpdates(modelOf(shape, build(false), [images, units]))).toHaveLength(1)
    expect(besideUpdates(model)).toEqual([])
    await expectSameRuns(model, inputsOf(shape, { data: waves([images, units], 1).data! }))
  })

  test('are copied where they are what the program gives, or a state becomes', async () => {
    const model = modelOf(shape, own => {
      const [first] = own.emit('Split', ['s0', own.ints(1000, 24)], { axis: { int: 0 } }, 2)
      own.nodes.push({ op: 'Split', inputs: ['s0', own.ints(1024)], outputs: ['n1'], attributes: {} })
      const [faded] = own.emit('Mul', ['s0', number(own, 0.5)])
      return { next: [faded!, undefined], seen: { value: first!, shape: [1000] } }
    })
    expect(planSteps(model, crew)!.pieces).toHaveLength(2)
    await expectSameRuns(model, inputsOf(shape, { b: waves(shape, 5).data! }))
  })
})

test('pieces of a matrix are no pieces of its memory', async () => {
  const matrix = [32, 64]
  const model = modelOf(matrix, own => {
    const [left, right] = own.emit('Split', ['s0', own.ints(16, 48)], { axis: { int: 1 } }, 2)
    const [joined] = own.emit('Concat', [right!, left!], { axis: { int: 1 } })
    const [seen] = own.emit('Softmax', [right!])
    return {
      next: [own.emit('Mul', [joined!, number(own, 0.5)])[0]!],
      seen: { value: seen!, shape: [32, 48] },
    }
  })
  expect(planSteps(model, crew)!.pieces).toEqual([])
  await expectSameRuns(model, inputsOf(matrix, { data: waves([1], 1).data! }))
})

test("rows of an input are each step's own, in what tasks and kernels read", async () => {
  const shape = [1024]
  const model = modelOf(
    shape,
    own => {
      const [row] = own.emit('Gather', ['data', 'i'], { axis: { int: 0 } })
      const [half] = own.emit('Mul', ['s0', number(own, 0.5)])
      const [seen] = own.emit('Softmax', [row!])
      return { next: [own.emit('Add', [half!, row!])[0]!], seen: { value: seen!, shape } }
    },
    ['steps', 1024],
  )
  const plan = planSteps(model, crew)!
  expect(plan.rows).toMatchObject([{ input: 'data', value: { dtype: 'float32', shape } }])
  expect(opsOf(model)).not.toContain('Gather')
  expect(plan.inputs.map(({ name }) => name)).toEqual(['steps', 'data', 'a'])
  const data = { ...waves([5, 1024], 5).data!, shape: [5, 1024] }
  const inputs = inputsOf(shape, { data })
  await expectSameRuns(model, inputs)
  const loaded = await stepped[2](encodeModel(model), undefined)
  const steps = hostTensor('int64', [], [6])
  await expect(loaded.run({ ...inputs, steps })).rejects.toThrow(
    'run: input "data": expected a row for each of 6 steps, received 5',
  )
  await loaded.release()
})

test('a row that the program gives is taken by a node', async () => {
  const model = modelOf(
    [1024],
    own => {
      own.nodes.push({
        op: 'Gather',
        inputs: ['data', 'i'],
        outputs: ['n1'],
        attributes: { axis: { int: 0 } },
      })
      const [half] = own.emit('Mul', ['s0', number(own, 0.5)])
      return { next: [half!, undefined], seen: { value: half!, shape: [1024] } }
    },
    ['steps', 1024],
  )
  expect(planSteps(model, crew)?.rows ?? []).toEqual([])
  const data = { ...waves([5, 1024], 5).data!, shape: [5, 1024] }
  await expectSameRuns(model, inputsOf([1024], { data, b: waves([1024], 5).data! }))
})

test.each([
  ['of another axis', ['data', 'i'], 1, ['steps', 1024]],
  ['by another number', ['data', 'c0'], 0, ['steps', 1024]],
  ['of a fixed number', ['data', 'i'], 0, [5, 1024]],
  ['whose extents only a run knows', ['data', 'i'], 0, ['steps', 'rows']],
] as const)('rows %s are taken by a node', (_, inputs, axis, data) => {
  const model = modelOf(
    [1024],
    own => {
      own.ints(2)
      const [row] = own.emit('Gather', [...inputs], { axis: { int: axis } })
      const [seen] = own.emit('ReduceSum', [row!], { keepdims: { int: 0 } })
      return { next: [own.emit('Mul', ['s0', number(own, 0.5)])[0]!], seen: { value: seen!, shape: [] } }
    },
    data,
  )
  expect(planSteps(model, crew)?.rows ?? []).toEqual([])
})
