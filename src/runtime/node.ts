/**
 * ONNX Runtime in Node: onnxruntime-node in a child process, one for each engine.
 *
 * Why not a worker thread: ONNX Runtime switches a thread to flush denormal numbers to zero when the first
 * session of the process is created, and never again. In every further worker thread of the process training
 * would be two to four times slower and end in other bits. A process of its own also keeps JavaScript's own
 * numbers out of it, and a crash of the runtime takes one engine with it, not the study.
 */
import { type ChildProcess, fork } from 'node:child_process'
import type { Socket } from 'node:net'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { encodeModel } from '../onnx/encode.ts'
import type { OnnxModel } from '../onnx/model.ts'
import { checkInteger, checkRange, FoveaError, UsageError, unknownName } from '../util/errors.ts'
import { CallerCarrier, CarrierFile, type ToCaller } from './carrier.ts'
import { Client } from './client.ts'
import { type Device, devices, type Engine, type EngineOptions } from './engine.ts'
import type { Greeting } from './node-process.ts'

/** What an engine's process begins with, but for the file that carries large values. */
const STDIO = ['ignore', 'ignore', 'pipe', 'ipc'] as const

/** More than any machine has cores. Of a hundred thousand, ONNX Runtime dies after minutes. */
const MOST_THREADS = 1024

/** The engines' processes that are alive. None outlives this one, however it exits. */
const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

/**
 * Opens an engine on `device`. An idle engine does not keep the process alive.
 *
 * Signals that reach the whole process group (Ctrl-C) do not end it: the caller decides. After the caller was
 * killed without notice, it ends with the run under way.
 */
export async function openEngine(options: EngineOptions = {}): Promise<Engine> {
  const { device = 'cpu', threads = availableParallelism() } = options
  checkInteger('openEngine', 'threads', threads, 1)
  checkRange('openEngine', 'threads', threads, 1, MOST_THREADS)
  if (!devices.includes(device)) throw unknownName('device', device, devices)

  // Run from source the file is TypeScript, in the published package JavaScript.
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const path = fileURLToPath(new URL(`./node-process.${extension}`, import.meta.url))
  const file = CarrierFile.open()
  const carrier = new CallerCarrier(file)
  const { descriptor } = file
  const inherited = descriptor === undefined ? [] : [descriptor]
  const child = fork(path, [device, String(threads), ...inherited.map(() => String(STDIO.length))], {
    serialization: 'advanced',
    // The caller's own flags (a debugger's port, `--eval`) are not meant for it.
    execArgv: [],
    env: { ...process.env, GLIBC_TUNABLES: withHugePages(process.env.GLIBC_TUNABLES) },
    // Its complaints would tear a progress display; the last of them explain a death.
    stdio: [...STDIO, ...inherited],
  })
  living.add(child)
  const stderr = child.stderr as Socket
  let complaint = ''
  stderr.on('data', (chunk: Buffer) => {
    complaint = (complaint + chunk).slice(-2000)
  })
  const gone = new Promise<FoveaError>(resolve => {
    const over = (how: string): void => {
      living.delete(child)
      const last = complaint.trim().split('\n').at(-1)
      resolve(new FoveaError(`the engine's process ended unexpectedly (${how})${last ? `: ${last}` : ''}`))
    }
    child.once('error', error => over(error.message))
    child.once('exit', (code, signal) => {
      const how = signal === 'SIGKILL' ? 'killed: often for want of memory' : (signal ?? `exit code ${code}`)
      stderr.ref()
      if (stderr.closed) over(how)
      else stderr.once('close', () => over(how))
    })
  })
  // Of what still comes then nothing is wanted.
  void gone.then(() => file.close())

  const greeting = await Promise.race([
    gone,
    new Promise<Greeting>(resolve => child.once('message', message => resolve(message as Greeting))),
  ])
  if (greeting instanceof FoveaError) throw greeting
  if ('failure' in greeting) {
    child.disconnect()
    throw new FoveaError(`onnxruntime-node cannot be loaded: ${greeting.failure}`)
  }

  if (greeting.slower !== undefined)
    process.emitWarning(
      `training and evaluation are slower than they could be: ${greeting.slower}`,
      'FoveaWarning',
    )

  const keepAlive = (awaiting: boolean): void => {
    if (awaiting) {
      child.ref()
      child.channel?.ref()
    } else {
      child.unref()
      child.channel?.unref()
    }
  }
  const client = new Client(device, threads, `onnxruntime-node ${greeting.version}`, {
    // A message that cannot be sent is answered by `gone`.
    send(message) {
      const { promise, resolve } = Promise.withResolvers<void>()
      child.send(carrier.sent(message), () => resolve())
      return promise
    },
    busy: keepAlive,
    async end() {
      child.ref()
      if (child.connected) child.disconnect()
      await gone
    },
  })
  child.on('message', message => {
    const reply = carrier.received(message as ToCaller, answer => child.send(answer, () => {}))
    if (reply) client.receive(reply)
  })
  void gone.then(error => client.fail(error))
  stderr.unref()
  keepAlive(false)

  if (device !== 'cpu') await checkDevice(client, greeting)
  return client
}

/**
 * Asks glibc to back large blocks of memory with huge pages: a training step walks through all weights
 * and the optimizer's state, and took about a tenth less time for 1.5 million parameters. Other C
 * libraries ignore the setting.
 */
function withHugePages(tunables: string | undefined): string {
  return [...(tunables ? [tunables] : []), 'glibc.malloc.hugetlb=1'].join(':')
}

/** Only the creation of a session tells whether the device's library, driver and hardware are there. */
async function checkDevice(engine: Engine, { version, backends }: Extract<Greeting, { version: string }>) {
  const program = await engine.load(encodeModel(probe)).catch(async (error: Error) => {
    await engine.close()
    const platform = `${process.platform} ${process.arch}`
    const supported = backends
      .filter(({ name }) => devices.includes(name as Device))
      .map(({ name, bundled }) => (bundled ? name : `${name} (its libraries are installed separately)`))
    throw new UsageError(
      `device "${engine.device}" is not available: ${error.message}; ` +
        `onnxruntime-node ${version} on ${platform} knows ${supported.join(', ')}`,
    )
  })
  await program.release()
}

const scalar = { dtype: 'float32', shape: [1] } as const
const probe: OnnxModel = {
  irVersion: 9,
  producer: 'fovea',
  opsets: [{ domain: '', version: 18 }],
  graph: {
    name: 'probe',
    nodes: [{ op: 'Neg', inputs: ['x'], outputs: ['y'], attributes: {} }],
    initializers: [],
    inputs: [{ name: 'x', ...scalar }],
    outputs: [{ name: 'y', ...scalar }],
  },
}
