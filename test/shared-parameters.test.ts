/** Parameters that several layers have in common. */
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { compilePrediction } from '../src/compile/predict-program.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { add, mul } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import { buildModel, parameterCount } from '../src/nn/build.ts'
import { describe as describeLayer, type LayerDefinition } from '../src/nn/layer.ts'
import { dense, flatten } from '../src/nn/layers/core.ts'
import { registerLayer } from '../src/nn/layers.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { type Model, sequential } from '../src/nn/model.ts'
import { adam } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { openEngine } from '../src/runtime/node.ts'
import { hostTensor, toNumbers } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { initialState, noise, train } from './train-with.ts'

interface Options {
  readonly name?: string
  readonly shared?: string
  readonly length?: number
  readonly initializer?: 'ones' | 'zeros'
}

/** y = weight x + x: a layer of one's own, whose weight may be another's too. */
const scaled = (options: Options) => describeLayer({ layer: 'scaled', ...options })

const scaledDefinition: LayerDefinition = {
  build({ shared, length = 1, initializer = 'ones' }: Options, [x], scope) {
    const owner = shared === undefined ? scope : scope.shared(shared)
    const weight = owner.parameter('weight', [length], { initializer, regularizer: l2(0.5) })
    return add(mul(x!, weight), x!)
  },
}
registerLayer('scaled', scaledDefinition)

const model = (...layers: readonly Options[]): Model =>
  sequential([flatten(), ...layers.map(scaled), dense({ units: 2, name: 'logits' })], { input: [1, 1, 3] })

const build = (made: Model, frozen: readonly string[] = []) =>
  buildModel(made, input('images', 'float32', [1, ...made.input]), { training: true, frozen })

describe('shared parameters', () => {
  const both = model({ name: 'a', shared: 's' }, { name: 'b', shared: 's' })

  test('exist once, under their own name, and are counted once', () => {
    const { parameters, summary } = build(both)
    expect(parameters.map(({ name, layer }) => `${layer}: ${name}`)).toEqual([
      'a: s/weight',
      'logits: logits/kernel',
      'logits: logits/bias',
    ])
    expect(summary.map(({ parameters }) => parameters)).toEqual([0, 1, 0, 8])
    expect(parameterCount(both)).toBe(9)
    expect(parameterCount(model({ shared: 's' }, { shared: 't' }, {}))).toBe(11)
  })

  test('receive the gradient of all their uses, and have one penalty', async () => {
    const { outputs, parameters, penalty } = build(both)
    const [weight] = parameters
    const [d] = gradients(sumAll(outputs.get('b')!), [weight!.tensor])
    const feeds = {
      images: hostTensor('float32', [1, 1, 1, 3], [1, 2, 3]),
      's/weight': hostTensor('float32', [1], [3]),
    }
    const [gradient, fine] = await evaluate([d!, penalty!], feeds)
    // sum (1 + w)^2 x, by w: 2 (1 + w) sum x
    expect(toNumbers(gradient!)).toEqual([48])
    expect(toNumbers(fine!)[0]).toBeCloseTo(0.5 * 9, 5)
  })

  test('are trained, kept and used for prediction under one name', async () => {
    const engine = await openEngine({ threads: 1 })
    try {
      const program = compileTraining({ model: both, loss: crossEntropy(), optimizer: adam(), batchSize: 4 })
      const before = initialState(program)
      const { state, loss } = await train(engine, program, noise(8, [1, 1, 3], 2), 0.01, [3], before)
      expect(loss.every(Number.isFinite)).toBe(true)
      const own = program.state.filter(({ kind }) => kind === 'parameter').map(({ name }) => name)
      expect(own).toEqual(['s/weight', 'logits/kernel', 'logits/bias'])
      expect(toNumbers(state['s/weight']!)).not.toEqual(toNumbers(before['s/weight']!))
      expect(() => compilePrediction(both, state)).not.toThrow()
    } finally {
      await engine.close()
    }
  })

  test.each([[['a', 'b']], [['a']]])('are frozen with the first layer that has them: %j', frozen => {
    const { parameters, penalty } = build(both, frozen)
    expect(parameters[0]).toMatchObject({ name: 's/weight', frozen: true })
    expect(penalty).toBeUndefined()
  })

  test('errors', () => {
    const built = (...layers: readonly Options[]) => errorOf(() => build(model(...layers)))
    expect(built({ name: 'a', shared: 'optimizer' })).toMatch(
      /^UsageError: shared name "optimizer": expected one that does not begin with /,
    )
    expect([
      built({ name: 'a', shared: 's' }, { name: 'b', shared: 's', length: 3 }),
      built({ name: 'a', shared: 's' }, { name: 'b', shared: 's', initializer: 'zeros' }),
      errorOf(() => build(both, ['b'])),
      built({ name: 'a', shared: 'b' }, { name: 'b' }),
      built({ name: 'b' }, { name: 'a', shared: 'b' }),
    ]).toMatchInlineSnapshot(`
      [
        "UsageError: layer "b": expected "s/weight" as layer "a" has it, [1] {"initializer":{"initializer":"ones"},"regularizer":{"l1":0,"l2":0.5}}, received [3] {"initializer":{"initializer":"ones"},"regularizer":{"l1":0,"l2":0.5}}",
        "UsageError: layer "b": expected "s/weight" as layer "a" has it, [1] {"initializer":{"initializer":"ones"},"regularizer":{"l1":0,"l2":0.5}}, received [1] {"initializer":{"initializer":"zeros"},"regularizer":{"l1":0,"l2":0.5}}",
        "UsageError: layer "b": it is frozen, but shares "s/weight" with layer "a", which is trained",
        "UsageError: layer "b": expected a name of its own for parameter "b/weight", which layer "a" has",
        "UsageError: layer "a": expected a name of its own for parameter "b/weight", which layer "b" has",
      ]
    `)
  })
})
