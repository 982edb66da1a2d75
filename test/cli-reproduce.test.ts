/** reproduce: the whole way from a paper's name to its claims beside what was measured. */
import { copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { z } from 'zod'
import { fovea, temporaryFolder } from './cli-process.ts'

vi.setConfig({ testTimeout: 120_000 })

const cwd = temporaryFolder()
const smoke = ['reproduce', 'singh-brar-2024', '--scale', 'smoke', '--epochs', '1']
const arms = ['basic', 'sparse', 'lateral-inhibition']

const summary = z.looseObject({ n: z.int(), mean: z.number(), least: z.number(), most: z.number() })
const documentSchema = z.strictObject({
  fovea: z.string(),
  paper: z.literal('singh-brar-2024'),
  scale: z.literal('smoke'),
  dataSet: z.looseObject({ name: z.literal('fashion-mnist-subset') }),
  seeds: z.array(z.int()),
  epochs: z.literal(1),
  batchSize: z.literal(32),
  optimizer: z.looseObject({ optimizer: z.literal('adam') }),
  threads: z.literal(1),
  device: z.literal('cpu'),
  runtime: z.string().startsWith('onnxruntime-node '),
  citation: z.string(),
  comparisons: z.array(
    z.looseObject({
      arm: z.enum(arms),
      claim: z.looseObject({ accuracy: z.number() }),
      test: summary,
      train: summary,
      parameters: z.literal(693_962),
    }),
  ),
  assumed: z.array(z.string()),
  remarks: z.array(z.string()),
  failed: z.array(z.unknown()).length(0),
  trials: z.array(z.looseObject({ arm: z.enum(arms), seed: z.int(), test: z.looseObject({}) })),
})

test('a study: JSON, what is in its folder, and that it is not trained twice', async () => {
  const done = await fovea([...smoke, '--seeds', '2,5', '--json'], { cwd })
  expect(done.code, done.stderr).toBe(0)
  const document = documentSchema.parse(JSON.parse(done.stdout))
  const folder = 'runs/singh-brar-2024-smoke'
  expect(JSON.parse(readFileSync(join(cwd, folder, 'result.json'), 'utf8'))).toEqual(document)
  expect(document.seeds).toEqual([2, 5])
  expect(document.comparisons.map(({ arm }) => arm)).toEqual(arms)
  expect(document.trials).toHaveLength(6)
  for (const { test: measured } of document.comparisons) {
    expect(measured.n).toBe(2)
    expect(measured.mean).toBeGreaterThan(0.4)
  }

  const before = statSync(join(cwd, folder, 'sparse/seed-5/checkpoint.safetensors')).mtimeMs
  const again = await fovea(['reproduce', '--resume', folder], { cwd })
  expect(again.code, again.stderr).toBe(0)
  expect(again.stderr.match(/trained before/g)).toHaveLength(6)
  expect(statSync(join(cwd, folder, 'sparse/seed-5/checkpoint.safetensors')).mtimeMs).toBe(before)
  const rows = again.stdout.split('\n').filter(line => /^ {2}(basic|sparse|lateral-inhibition) /.test(line))
  expect(again.stdout.replace(/\s+/g, ' ')).toContain(
    '1,800 training, 200 validation and 500 test images; 1 epoch (the paper: 50); seeds 2, 5 ',
  )
  expect(again.stdout).not.toContain('25 %')
  expect(again.stderr).not.toContain('warning')
  document.comparisons.forEach(({ test: measured, claim }, i) => {
    expect(rows[i]).toContain(`${(measured.mean * 100).toFixed(2)} ± `)
    expect(rows[i]).toContain(` ${((measured.mean - claim.accuracy) * 100).toFixed(2)} `)
  })
  expect(JSON.parse(readFileSync(join(cwd, folder, 'result.json'), 'utf8'))).toEqual(document)

  expect(await fovea([...smoke, '--out', folder], { cwd })).toMatchObject({
    code: 2,
    stderr: `fovea: ${folder} holds a study already; expected a new folder, or --resume ${folder}\n`,
  })
  expect(await fovea(['reproduce', '--resume', folder, '--epochs', '3'], { cwd })).toMatchObject({ code: 2 })
})

test('a request that cannot be run leaves nothing; corrected, it runs in the same folder', async () => {
  const request = [...smoke, '--seeds', '1', '--out', 'corrected']
  expect(await fovea([...request, '--batch-size', '1801'], { cwd })).toEqual({
    code: 2,
    signal: null,
    stdout: '',
    stderr:
      'fovea: basic: expected a batch size of at most the 1800 images that are trained on, received 1801\n',
  })
  expect(existsSync(join(cwd, 'corrected'))).toBe(false)
  const done = await fovea([...request, '--batch-size', '64'], { cwd })
  expect(done.code, done.stderr).toBe(0)
  expect(done.stdout).toContain('minibatches of 64 instead of 32')

  // As another version would have left it.
  const path = join(cwd, 'corrected/study.json')
  const study = JSON.parse(readFileSync(path, 'utf8'))
  writeFileSync(path, JSON.stringify({ ...study, fovea: '0.0.0', runtime: 'onnxruntime-node 1.0.0' }))
  const { stderr } = await fovea(['reproduce', '--resume', 'corrected'], { cwd })
  expect(stderr).toMatch(/^fovea: warning: so far the study ran with Fovea 0\.0\.0, from here with Fovea \d/)
  expect(stderr).toContain(
    `so far the study ran with onnxruntime-node 1.0.0, from here with ${study.runtime}: the last bits of its results may differ\n`,
  )
})

test('interrupted, and resumed; a checkpoint of another network is refused', async () => {
  let sent = false
  const stopped = await fovea([...smoke.slice(0, -1), '6', '--seeds', '1', '--jobs', '2', '--out', 'study'], {
    cwd,
    onStderr(text, child) {
      if (sent || !text.includes('basic, seed 1: epoch 1/6')) return
      sent = true
      child.kill('SIGINT')
    },
  })
  expect(stopped).toMatchObject({ code: 130, stdout: '' })
  expect(stopped.stderr).toContain(
    'fovea: interrupted after 0 of 3 trials, nothing is lost; go on with: fovea reproduce --resume study\n',
  )
  const checkpoint = (arm: string) => `study/${arm}/seed-1/checkpoint.safetensors`
  copyFileSync(join(cwd, checkpoint('basic')), join(cwd, checkpoint('sparse')))
  const resumed = await fovea(['reproduce', '--resume', 'study', '--jobs', '2'], { cwd })
  expect(resumed.code).toBe(1)
  expect(resumed.stderr).not.toContain('basic, seed 1: epoch 1/6')
  expect(resumed.stderr).toMatch(/basic, seed 1: epoch 6\/6/)
  expect(resumed.stderr).toContain(
    `✗ sparse                 1  ${checkpoint('sparse')}: a checkpoint of another trial: its model is "singh-brar/basic", expected "singh-brar/sparse"\n`,
  )
  expect(resumed.stderr).toContain(
    '\nfovea: 1 of 3 trials failed; try them again with: fovea reproduce --resume study\n',
  )
  expect(resumed.stdout).toMatch(/\n {2}sparse +98.73 +failed +0 /)
})
