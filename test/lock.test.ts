/** One process at a time on a folder: refused while another lives, taken over when it is gone. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { expect, test, vi } from 'vitest'
import { withLock } from '../src/train/lock.ts'
import { fovea, node, temporaryFolder } from './cli-process.ts'

vi.setConfig({ testTimeout: 60_000 })

const cwd = temporaryFolder()
const text = (pid: number, host = hostname()) => `${JSON.stringify({ pid, host })}\n`

test('a second process is refused while the first trains, and goes on where the first was killed', async () => {
  const args = ['train', '--model', 'singh-brar/basic', '--dataset', 'fashion-mnist-subset', '--threads', '1']
  const lock = join(cwd, 'run/trial.lock')
  let second: ReturnType<typeof fovea> | undefined
  const first = await fovea([...args, '--epochs', '200', '--checkpoint-every', '0.05', '--out', 'run'], {
    cwd,
    onStderr(stderr, child) {
      if (second || !stderr.includes('epoch 2/200')) return
      second = fovea(['train', '--resume', 'run', '--epochs', '200'], { cwd }).then(outcome => {
        expect(JSON.parse(readFileSync(lock, 'utf8'))).toMatchObject({ pid: child.pid, host: hostname() })
        child.kill('SIGKILL')
        return outcome
      })
    },
  })
  expect(first.signal).toBe('SIGKILL')
  const pid = JSON.parse(readFileSync(lock, 'utf8')).pid as number
  expect(await second).toMatchObject({
    code: 2,
    stdout: '',
    stderr: `fovea: run: process ${pid} is at work there; wait until it has ended\n`,
  })

  const done = Number(/.*epoch (\d+)\/200: loss/s.exec(first.stderr)![1])
  const resumed = await fovea(['train', '--resume', 'run', '--epochs', `${done + 1}`, '--json'], { cwd })
  expect(resumed.code, resumed.stderr).toBe(0)
  expect(JSON.parse(resumed.stdout).epochs).toHaveLength(done + 1)
  expect(existsSync(lock)).toBe(false)
})

test('of many processes that find a stale lock at once, one has it', async () => {
  const gone = await node(['-e', 'process.stdout.write(String(process.pid))'])
  const path = join(cwd, 'many.lock')
  const module = JSON.stringify(new URL('../src/train/lock.ts', import.meta.url).href)
  for (const stale of [text(Number(gone.stdout)), '', '{"pid":']) {
    writeFileSync(path, stale)
    const script = `
      const { withLock } = await import(${module})
      while (Date.now() < ${Date.now() + 1000});
      await withLock(${JSON.stringify(path)}, 'here', () => new Promise(resolve => setTimeout(resolve, 2000)))
        .then(() => console.log('worked'), error => console.log(error.message.replace(/\\d+/, 'PID')))`
    const outcomes = await Promise.all(
      Array.from({ length: 4 }, () => node(['--input-type=module', '-e', script])),
    )
    const refusal = 'here: process PID is at work there; wait until it has ended\n'
    expect(outcomes.map(({ stdout }) => stdout).toSorted()).toEqual([refusal, refusal, refusal, 'worked\n'])
    expect(readdirSync(cwd).filter(name => name.startsWith('many.lock'))).toEqual([])
  }
})

test('within one process too; a lock of an earlier process of the same id is taken over', async () => {
  const path = join(cwd, 'own.lock')
  writeFileSync(path, text(process.pid))
  await withLock(path, 'here', async () => {
    await expect(withLock(path, 'here', async () => {})).rejects.toThrow(
      `here: process ${process.pid} is at work there; wait until it has ended`,
    )
    expect(existsSync(path)).toBe(true)
  })
  expect(existsSync(path)).toBe(false)
})

test('a lock that cannot be written', async () => {
  const path = join(cwd, 'nowhere/trial.lock')
  await expect(withLock(path, 'here', async () => {})).rejects.toThrow(
    `cannot write ${path}: no such file or directory (ENOENT)`,
  )
})

test('a lock of another machine is not taken over, and is taken away after a failure of its own', async () => {
  const path = join(cwd, 'far.lock')
  writeFileSync(path, text(1, 'elsewhere.example'))
  await expect(withLock(path, 'here', async () => {})).rejects.toThrow(
    `here: process 1 on elsewhere.example is at work there; if it is not, remove ${path}`,
  )
  const own = join(cwd, 'own.lock')
  const failing = withLock(own, 'here', async () => {
    throw new Error('failed at work')
  })
  await expect(failing).rejects.toThrow('failed at work')
  expect(existsSync(own)).toBe(false)
})
