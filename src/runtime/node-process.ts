/**
 * The child process of {@link openEngine}: started with a device, a number of threads and, where there is
 * one, the number of the file that carries large values, it serves one engine.
 */
import type { InferenceSession } from 'onnxruntime-node'
import { CarrierFile, EngineCarrier, type ToCaller, type ToEngine } from './carrier.ts'
import { Host } from './host.ts'
import { type Loader, sessionLoader } from './loaded-program.ts'
import { recordInFolder } from './record.ts'

/** The first message to the parent. */
export type Greeting =
  | {
      readonly version: string
      readonly backends: readonly { readonly name: string; readonly bundled: boolean }[]
      /** Why training and evaluation are slower than they could be. */
      readonly slower?: string
    }
  | { readonly failure: string }

// Ctrl-C and a scheduler's SIGTERM reach the whole process group; the parent decides when to end.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {})
process.on('disconnect', () => process.exit())

const [device, threads, file] = process.argv.slice(2)

try {
  const { default: ort } = await import('onnxruntime-node')
  ort.env.logLevel = 'error'
  const options: InferenceSession.SessionOptions = {
    executionProviders: device === 'cpu' ? ['cpu'] : [device!, 'cpu'],
    executionMode: 'sequential',
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
    graphOptimizationLevel: 'all',
    // Its one block for all values of a step stays, beside what was allocated until it was planned: a third more
    // memory for resnet20, and no faster.
    enableMemPattern: false,
    logSeverityLevel: 3,
    // Adam's moments of dead inputs become denormal after some thousand steps, and slow it down 2 to 4 times.
    extra: { session: { set_denormal_as_zero: '1' } },
  }
  const sessions = sessionLoader(ort, options)
  const { load, slower } = device === 'cpu' ? await stepped(sessions) : { load: sessions }
  const carrier = new EngineCarrier(new CarrierFile(file === undefined ? undefined : Number(file)))
  const host = new Host(load, recordInFolder, (reply, op) => carrier.deliver(reply, op, send))
  process.on('message', (received: ToEngine) => {
    const message = carrier.received(received)
    if (message) host.answer(message)
  })
  send({
    version: ort.env.versions.node ?? 'of unknown version',
    backends: ort.listSupportedBackends(),
    ...(slower === undefined ? {} : { slower }),
  })
} catch (error) {
  send({ failure: error instanceof Error ? error.message.split('\n', 1)[0]! : String(error) })
}

/** Where ONNX Runtime's library cannot be called from JavaScript, training ends the same up to rounding, but later. */
async function stepped(sessions: Loader): Promise<{ load: Loader; slower?: string }> {
  try {
    const { steppedLoader } = await import('./steps/stepped.ts')
    return { load: steppedLoader(Number(threads), sessions) }
  } catch (error) {
    return { load: sessions, slower: (error as Error).message.split('\n', 1)[0]! }
  }
}

function send(message: ToCaller | Greeting): void {
  // The parent may be gone: `disconnect` follows.
  process.send?.(message, () => {})
}
