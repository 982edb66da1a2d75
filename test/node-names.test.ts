/** The names of a program's nodes: what each is for. */
import { expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { nameWithOrigin, originOfName } from '../src/compile/node-names.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { conv2d, dense, flatten, randomFlip, rescaling, sequential } from '../src/nn/index.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adam } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import type { OnnxGraph } from '../src/onnx/model.ts'
import { architectureNamed } from '../src/zoo/index.ts'

const passes = ['forward', 'backward', 'update']

function bodyOf(bytes: Uint8Array): OnnxGraph {
  const body = decodeModel(bytes).graph.nodes.find(({ op }) => op === 'Loop')!.attributes.body!
  if ('graph' in body) return body.graph
  throw new Error('no body')
}

const trainingOf = (model: Parameters<typeof compileTraining>[0]['model']) =>
  bodyOf(
    compileTraining({
      model,
      loss: crossEntropy(),
      optimizer: adam(),
      batchSize: 8,
      augmentation: [randomFlip()],
    }).bytes,
  )

const model = sequential(
  [
    rescaling({ scale: 1 / 255 }),
    conv2d({ filters: 8, kernelSize: 3, name: 'block/conv' }),
    batchNormalization(),
    flatten(),
    dense({ units: 64, name: 'a "b" \\ 50 %', kernelRegularizer: l2(0.1) }),
    dense({ units: 3, name: 'Conv_1' }),
  ],
  { input: [12, 12, 1] },
)

test('every node of a step has a name of its own, that of its layer and pass', () => {
  const { nodes } = trainingOf(model)
  expect(new Set(nodes.map(({ name }) => name)).size).toBe(nodes.length)
  const origins = nodes.map(({ name }) => originOfName(name!))
  const layersOf = (pass: string) =>
    new Set(origins.filter(origin => origin!.pass === pass).map(origin => origin!.layer))
  const own = model.layers.map(({ name }) => name)
  expect(layersOf('forward')).toEqual(
    new Set([...own, '(data)', '(augment)', '(small parameters)', '(loss)', '(loop)']),
  )
  // Pixels have no gradient.
  expect(layersOf('backward')).toEqual(new Set([...own.slice(1), '(loss)']))
  // One layer has a large parameter, all others are packed.
  expect(layersOf('update')).toEqual(new Set(['a "b" \\ 50 %', '(small parameters)', '(optimizer)']))
})

test.for(['wang/cnn', 'visionnet/attention-2', 'resnet20'])('no pass of %s needs a later one', name => {
  const { native, build } = architectureNamed(name)
  const { nodes } = trainingOf(build(native.input, native.classes))
  const made = new Map<string, number>()
  const early: (string | undefined)[] = []
  for (const node of nodes) {
    const pass = passes.indexOf(originOfName(node.name!)!.pass)
    if (node.inputs.some(input => (made.get(input) ?? 0) > pass)) early.push(node.name)
    for (const output of node.outputs) made.set(output, pass)
  }
  expect(early).toEqual([])
  // Of each pass something.
  expect([...new Set(made.values())].sort()).toEqual([0, 1, 2])
})

test('an evaluation has a forward pass alone', () => {
  const { nodes } = bodyOf(compileEvaluation(model, crossEntropy(), 8).bytes)
  const origins = nodes.flatMap(({ name }) => originOfName(name!) ?? [])
  expect(new Set(origins.map(({ pass }) => pass))).toEqual(new Set(['forward']))
  expect(origins.map(({ layer }) => layer)).toEqual(expect.arrayContaining(['block/conv', 'Conv_1']))
})

test("names survive ONNX Runtime's fusions, and other names have no origin", () => {
  const origin = { pass: 'backward', layer: 'a/"b"_1/%22\u0085' } as const
  const name = nameWithOrigin(origin, 'MatMul_12')
  expect(name).not.toMatch(/["\\\p{Cc}]/u)
  for (const fused of [
    name,
    `fused ${name}/MatMulAddFusion`,
    `${name}/MatMulScaleFusion/`,
    `${name}_new_reshape_new_reshape`,
  ])
    expect(originOfName(fused)).toEqual(origin)
  for (const other of ['Transpose_token_3', 'begin/Concat_1', 'Loop'])
    expect(originOfName(other)).toBeUndefined()
})
