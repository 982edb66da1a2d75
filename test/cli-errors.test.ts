/** Wrong requests: one line on stderr, nothing on stdout, and the exit code. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { fovea, temporaryFolder } from './cli-process.ts'

vi.setConfig({ testTimeout: 60_000 })

const cwd = temporaryFolder()
const basic = ['train', '--model', 'singh-brar/basic', '--dataset', 'fashion-mnist-subset']

test.for([
  'trian',
  'train',
  'train --epoch 3',
  'train --epochs',
  'train --model singh-brar/basc',
  'train --model singh-brar/basic --dataset fashon-mnist',
  'train --model singh-brar/basic --epochs 1.5',
  'train --model singh-brar/basic --learning-rate -1',
  'train --model singh-brar/basic --optimizer adm',
  'train --model singh-brar/basic --device tpu',
  'train --model singh-brar/basic --dataset fashion-mnist-subset --data missing',
  'train --model singh-brar/basic --dataset fashion-mnist-subset --batch-size 1801',
  'train --model singh-brar/basic --dataset fashion-mnist-subset --fraction 2',
  'train --model singh-brar/basic --dataset fashion-mnist-subset --validation 0 --early-stopping 2',
  'train --model singh-brar/basic --optimizer sgd --nesterov',
  'train --model lenet5 --dataset fashion-mnist-subset --warmup 2',
  'train --model lenet5 --dataset fashion-mnist-subset --freeze backbone',
  'train --model lenet5 --dataset fashion-mnist-subset --weights missing',
  'train --resume missing',
  'evaluate missing',
  'predict missing picture.png',
  'predict run',
  'models singh-brar/spars',
  'models --input 32x32x3',
  'models vgg16 --input 32x32',
  'models vgg16 --input 31x32x3',
  'datasets extra',
  'datasets --data folder',
  'reproduce',
  'reproduce singh-brar-2023',
  'reproduce singh-brar-2024 --scale small',
  'reproduce singh-brar-2024 --seeds 1,2,1',
  'reproduce singh-brar-2024 --seeds none',
  'reproduce --resume missing',
])('fovea %s', async line => {
  const { code, stdout, stderr } = await fovea(line.split(' '), { cwd })
  expect({ code, stderr: stderr.replaceAll(cwd, 'CWD') }).toMatchSnapshot()
  expect(stdout).toBe('')
  expect(stderr).toMatch(/^fovea: .*\n$/)
})

test('a request that failed leaves no folder', () => {
  expect(readdirSync(cwd)).not.toContain('missing')
  expect(readdirSync(join(cwd, 'runs'))).toEqual([])
})

test('a named folder too, but not one that was there before', async () => {
  mkdirSync(join(cwd, 'mine'))
  for (const out of ['new', 'mine'])
    expect(await fovea([...basic, '--batch-size', '1801', '--out', out], { cwd })).toMatchObject({ code: 2 })
  expect(readdirSync(cwd)).toContain('mine')
  expect(readdirSync(cwd)).not.toContain('new')
  expect(readdirSync(join(cwd, 'mine'))).toEqual([])
})

test('a folder that cannot be made', async () => {
  writeFileSync(join(cwd, 'file'), 'not a folder')
  const { code, stderr } = await fovea([...basic, '--out', 'file/run'], { cwd })
  expect({ code, stderr }).toEqual({
    code: 1,
    stderr: 'fovea: file/run: the folder cannot be made: not a directory (ENOTDIR)\n',
  })
})

test('a checkpoint that is none', async () => {
  mkdirSync(join(cwd, 'damaged'))
  writeFileSync(join(cwd, 'damaged/checkpoint.safetensors'), 'damaged')
  const { code, stderr } = await fovea(['evaluate', 'damaged'], { cwd })
  expect({ code, stderr }).toMatchInlineSnapshot(`
    {
      "code": 1,
      "stderr": "fovea: damaged/checkpoint.safetensors: expected at least 8 bytes, received 7: the file is damaged, or not a safetensors file
    ",
    }
  `)
})

test('an unexpected error is one line; --verbose shows where it came from', async () => {
  const broken = {
    NODE_OPTIONS: `--import=data:text/javascript,JSON.stringify=()=>{throw(new(TypeError)('broken'))}`,
  }
  const short = await fovea(['datasets', '--json'], { env: broken })
  expect(short).toMatchObject({
    code: 1,
    stdout: '',
    stderr: 'fovea: unexpected error: broken; run again with --verbose for where it came from\n',
  })
  const long = await fovea(['datasets', '--json', '--verbose'], { env: broken })
  expect(long.stderr).toMatch(/^fovea: broken\nTypeError: broken\n {4}at /)
})
