/** `fovea profile` measures real steps: its sums, its layers, and what it leaves behind. */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { committedCosts } from '../scripts/program-costs.ts'
import type { ProfileDocument } from '../src/cli/profile-report.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adam } from '../src/nn/optimizers.ts'
import { costOfNode, stepNodes } from '../src/onnx/cost.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import type { Measured } from '../src/train/profile.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { fovea, temporaryFolder } from './cli-process.ts'

vi.setConfig({ testTimeout: 90_000 })

const cwd = temporaryFolder()
const temporary = join(cwd, 'tmp')
mkdirSync(temporary)
const subset = ['--dataset', 'fashion-mnist-subset', '--threads', '1']
const profile = (...args: string[]) =>
  fovea(['profile', ...subset, ...args], { cwd, env: { TMPDIR: temporary } })

const sum = (parts: readonly Measured[], of: keyof Measured) =>
  parts.reduce((total, part) => total + part[of], 0)

test('time adds up by pass, operator, layer and node, and counts are those of the program', async () => {
  const { code, stdout, stderr } = await profile('--model', 'singh-brar/basic', '--steps', '6', '--json')
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const document: ProfileDocument = JSON.parse(stdout)
  const { total, passes, ops, layers, nodes, program, steps } = document
  expect(document).toMatchObject({ model: 'singh-brar/basic', batchSize: 32, threads: 1, steps: 6 })
  for (const parts of [Object.values(passes), ops, layers, nodes]) {
    expect(sum(parts, 'share')).toBeCloseTo(1, 9)
    for (const figure of ['seconds', 'calls', 'multiplyAdds', 'bytes'] as const)
      expect(sum(parts, figure) / total[figure]).toBeCloseTo(1, 9)
  }
  expect(total.seconds).toBeGreaterThan(0)
  // A step with the profiler is its nodes and what is between them; medians leave out what is unusual.
  expect(total.seconds).toBeLessThan(document.profiledStepSeconds)

  // The model's layers in order; then, in brackets, what is none.
  const { native, build } = architectureNamed('singh-brar/basic')
  const { layers: own } = build(native.input, native.classes)
  expect(layers.slice(0, own.length).map(({ name, kind }) => [name, kind])).toEqual(
    own.map(({ name, layer }) => [name, layer.layer]),
  )
  for (const { name, kind } of layers.slice(own.length)) {
    expect(name).toMatch(/^\(.+\)$/)
    expect(kind).toBeUndefined()
  }
  const layer = (name: string) => layers.find(other => other.name === name)!
  expect(layer('conv').forms).toEqual(['few-channels'])
  // Each of the three products of a dense layer, forward, and by input and kernel.
  // The forward one is thirteen, one for each row of the maps, and what adds them up.
  expect(layer('hidden').passes.forward.multiplyAdds).toBe(32 * 5408 * 128 + 13 * 32 * 128)
  expect(layer('hidden').passes.backward.multiplyAdds).toBe(2 * 32 * 5408 * 128 + 32 * 128)
  // Adam in one pass: gradient, kernel and two moments are read, and all but the gradient written.
  expect(layer('hidden').passes.update).toMatchObject({ multiplyAdds: 0, bytes: 7 * 4 * 5408 * 128 + 4 })
  expect(layer('hidden').passes.update.seconds).toBeGreaterThan(0)
  expect(layer('conv').passes.update.calls).toBe(0)
  expect(layer('(small parameters)').passes.update.calls).toBeGreaterThan(0)

  // As written: the committed table. As it runs: fewer nodes, by shapes that ONNX Runtime itself tells, and
  // besides updates, pooling and flattening the same values.
  expect(program).toEqual((await committedCosts())['singh-brar/basic'])
  expect(total.multiplyAdds).toBe(program.multiplyAdds)
  expect(total.calls).toBeLessThan(program.nodes)
  const { bytes } = compileTraining({
    model: build(native.input, native.classes),
    loss: crossEntropy(),
    optimizer: adam(),
    batchSize: 32,
  })
  const inKernels = stepNodes(decodeModel(bytes))
    .filter(({ node }) => /^update\/|\/pool\/|\/Transpose_\d+$/.test(node.name ?? ''))
    .reduce((sum, { node, inputs, outputs }) => sum + costOfNode(node.op, inputs, outputs).bytes, 0)
  // Pooling writes its maxima as the dense layer reads them, and its gradient reads what that layer's input receives.
  const pooling = nodes.filter(({ op }) => op === 'Pass')
  expect(pooling.map(node => node.layer).sort()).toEqual(['hidden', 'pool'])
  const [forward, backward] = ['hidden', 'pool'].map(name => pooling.find(node => node.layer === name)!)
  const others = total.bytes - passes.update.bytes - sum(pooling, 'bytes')
  expect(Math.abs(others / (program.bytes - inKernels) - 1)).toBeLessThan(0.01)
  // One pass each: the maps are read and the maxima written; the maps and a cotangent are read, and the maps' written.
  const [maps, maxima] = [4 * 26 * 26 * 32 * 32, 4 * 13 * 13 * 32 * 32]
  expect([forward!.bytes, backward!.calls, backward!.bytes]).toEqual([maps + maxima, 1, 2 * maps + maxima])
  // Every node once a step; nothing of the warm-up.
  expect(new Set(nodes.map(({ calls }) => calls))).toEqual(new Set([1]))
  expect(steps).toBe(6)

  // No run, and no trace. ONNX Runtime keeps files of its own there.
  expect(readdirSync(cwd)).toEqual(['tmp'])
  expect(readdirSync(temporary).filter(name => name.startsWith('fovea'))).toEqual([])
})

test('as text; the number of steps is chosen; augmentation is no layer', async () => {
  const { stdout } = await profile('--model', 'bassas/mlp-1', '--augment', 'noise:0.05', '--optimizer', 'sgd')
  expect(stdout).toMatch(/^bassas\/mlp-1 on .*minibatches of 32 images, sgd\n1 thread, onnxruntime-node /)
  const steps = Number(/median of (\d+) steps/.exec(stdout)?.[1])
  expect(steps).toBeGreaterThanOrEqual(5)
  expect(steps).toBeLessThanOrEqual(200)
  const shares = (table: string) =>
    [...table.matchAll(/(\d+\.\d\d) %/g)].reduce((total, [, percent]) => total + Number(percent), 0)
  const tables = stdout.split('\n\n').slice(2, 5)
  expect(tables.map(table => /^ {2}(\w+)/.exec(table)?.[1])).toEqual(['pass', 'operator', 'layer'])
  // Each of at most twenty rows is rounded.
  for (const table of tables) expect(Math.abs(shares(table) - 100)).toBeLessThan(0.1)
  expect(tables[2]).toMatch(/^ {2}\(augment\) /m)
  expect(tables[2]).toMatch(/^ {2}\w+ +dense( +\d+\.\d+){2}/m)
})

test.for([
  [['--steps', '5'], 'profile: expected --model NAME; models: singh-brar/basic, '],
  [
    ['--model', 'bassas/mlp-1', '--steps', '0'],
    '--steps: expected a whole number of at least 1, received "0"',
  ],
  [
    ['--model', 'bassas/mlp-1', '--steps', '1000000'],
    'profile: expected at most 13429 steps of 67 nodes, which is what ONNX Runtime records, received 1000000',
  ],
  [['--model', 'bassas/mlp-1', '--batch-size', '5000'], 'profile: expected a batch size of at most the '],
] as const)('a wrong request: %s', async ([args, message]) => {
  const { code, stdout, stderr } = await profile(...args)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain(message)
  expect(stderr.trimEnd().split('\n')).toHaveLength(1)
})
