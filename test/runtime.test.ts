import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { openEngine } from '../src/runtime/node.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import { accumulate, repeatedMatMul, testEngine } from './runtime-contract.ts'

testEngine('onnxruntime-node', openEngine)

// There are no signals, and no pgrep.
const windows = process.platform === 'win32'

/** Runs JavaScript that may use `openEngine` and the contract's programs, in a process of its own. */
function script(body: string): [string, string[]] {
  const from = (path: string) => JSON.stringify(new URL(path, import.meta.url).href)
  const imports = `import { execFileSync } from 'node:child_process'
    import { openEngine } from ${from('../src/runtime/node.ts')}
    const enginePid = () => Number(execFileSync('pgrep', ['-P', String(process.pid), '-f', 'node-process']))
    const decode = bytes => Uint8Array.from(Buffer.from(bytes, 'base64'))
    const accumulate = decode('${Buffer.from(accumulate).toString('base64')}')
    const matmul = decode('${Buffer.from(repeatedMatMul(8)).toString('base64')}')
    const pair = { dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) }
    const feeds = count => ({
      count: { dtype: 'int64', shape: [], data: BigInt64Array.of(count) },
      x: { dtype: 'float32', shape: [8, 8], data: new Float32Array(64) },
    })`
  return [process.execPath, ['--input-type=module', '-e', `${imports}\n${body}`]]
}

const run = async (body: string) => promisify(execFile)(...script(body), { timeout: 30_000 })

/** Whether a process of this id, or a group of this negative id, is there. */
function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

test('opening and closing over and over leaves nothing behind', async () => {
  const { stdout, stderr } = await run(`
    for (let i = 0; i < 8; i++) {
      const engine = await openEngine({ threads: 1 })
      await (await engine.load(accumulate)).run({ feeds: { state: pair, step: pair } })
      await engine.close()
    }
    // A closed process handle lives until the next turn of the event loop.
    await new Promise(resolve => setTimeout(resolve, 20))
    console.log(process.getActiveResourcesInfo().filter(name => name === 'ProcessWrap').length)`)
  expect(stderr).toBe('')
  expect(stdout).toBe('0\n')
})

test('an idle engine does not keep the process alive, a run does', async () => {
  const { stdout } = await run(`
    const engine = await openEngine({ threads: 1 })
    const program = await engine.load(matmul)
    program.run({ feeds: feeds(200000n) }).then(() => console.log('finished'))`)
  expect(stdout).toBe('finished\n')
})

test.skipIf(windows)('leaving in the middle of a run ends the engine too', async () => {
  const { stdout } = await run(`
    const engine = await openEngine({ threads: 1 })
    const program = await engine.load(matmul)
    program.run({ feeds: feeds(100000000n) })
    console.log(enginePid())
    process.exit(0)`)
  await expect.poll(() => alive(Number(stdout)), { timeout: 5000 }).toBe(false)
})

test.skipIf(windows)('Ctrl-C does not end the engine before its caller', async () => {
  const [command, args] = script(`
    process.once('SIGINT', async () => {
      const { next } = await loaded.run({ feeds: { state: pair, step: pair } })
      console.log(next.data.join())
      await engine.close()
      process.exit(0)
    })
    const engine = await openEngine({ threads: 1 })
    const loaded = await engine.load(accumulate)
    // Waits for the signal, but not for ever: it outlives a test that is itself killed.
    setTimeout(() => process.exit(3), 30_000)
    console.log('ready')`)
  const child = spawn(command, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => {
    // The group is gone when all went well.
    if (alive(-child.pid!)) process.kill(-child.pid!, 'SIGKILL')
  })
  let output = ''
  child.stdout.on('data', chunk => {
    output += chunk
    // The terminal signals the whole process group.
    if (output === 'ready\n') process.kill(-child.pid!, 'SIGINT')
  })
  const [code] = await once(child, 'close')
  expect({ code, output }).toEqual({ code: 0, output: 'ready\n2,4\n' })
})

test.skipIf(windows)('an engine that dies rejects what is under way, and all that follows', async () => {
  const { stdout } = await run(`
    const engine = await openEngine({ threads: 1 })
    const program = await engine.load(matmul)
    const running = program.run({ feeds: feeds(100000000n) })
    process.kill(enginePid(), 'SIGKILL')
    for (const promise of [running, engine.read(['x'])])
      await promise.catch(error => console.log(error.name + ': ' + error.message))
    await engine.close()`)
  const line = "FoveaError: the engine's process ended unexpectedly (killed: often for want of memory)\n"
  expect(stdout).toBe(line + line)
})

test.skipIf(windows)('an engine that dies while large values are on their way rejects them', async () => {
  const { stdout } = await run(`
    const large = { dtype: 'uint8', shape: [100e6], data: new Uint8Array(100e6).fill(7) }
    for (const ask of [engine => engine.write({ other: large }), engine => engine.read(['large'])])
      for (const ms of [0, 30]) {
        const engine = await openEngine({ threads: 1 })
        await engine.write({ large })
        const pid = enginePid()
        const asked = ask(engine)
        setTimeout(() => process.kill(pid, 'SIGKILL'), ms)
        await asked.then(() => console.log('done'), error => console.log(error.name))
        await engine.close()
      }`)
  expect(stdout.match(/^FoveaError$/gm)?.length).toBeGreaterThanOrEqual(2)
  expect(stdout.replaceAll(/^(FoveaError|done)\n/gm, '')).toBe('')
})

test('a request that cannot be sent is rejected, and does not hold up closing', async () => {
  const engine = await openEngine({ threads: 1 })
  const unsendable = (() => {}) as unknown as string
  await expect(engine.read([unsendable])).rejects.toThrow(
    /^the engine was not reached: .* could not be cloned/,
  )
  const loaded = await engine.load(accumulate)
  expect(loaded.outputs).toContain('next')
  await engine.close()
})

test('a device that is not there is refused in one line', async () => {
  const error = await openEngine({ device: 'cuda', threads: 1 }).then(
    async engine => {
      // On a machine with CUDA: it must work.
      const program = await engine.load(accumulate)
      const pair = hostTensor('float32', [2], [1, 2])
      expect((await program.run({ feeds: { state: pair, step: pair } })).next).toEqual(
        hostTensor('float32', [2], [2, 4]),
      )
      await engine.close()
    },
    (error: Error) => error,
  )
  if (!error) return
  expect(error).toBeInstanceOf(UsageError)
  expect(error).toBeInstanceOf(FoveaError)
  expect(error.message).toMatch(/^device "cuda" is not available: .*; onnxruntime-node .* knows cpu, /)
  expect(error.message).not.toContain('\n')
})
