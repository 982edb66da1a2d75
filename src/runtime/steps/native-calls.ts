/** Runs of ONNX Runtime's sessions, prepared by one thread, as any thread can make them. */
import { createRequire } from 'node:module'

/** As they go to other threads; whoever prepared them keeps alive what they point to. */
export interface NativeCalls {
  /** ONNX Runtime's library, and addresses of its functions. */
  readonly library: string
  readonly run: bigint
  readonly getErrorMessage: bigint
  readonly releaseStatus: bigint
  /** By tasks: for each part the {@link NativeCall}. */
  readonly parts: ReadonlyMap<number, readonly NativeCall[]>
}

/** What `Run` takes, but for options: the session, names, values and number of inputs, and those of outputs. */
export type NativeCall = readonly [
  session: bigint,
  inputNames: bigint,
  inputs: bigint,
  inputCount: bigint,
  outputNames: bigint,
  outputCount: bigint,
  outputs: bigint,
]

/** C types of the functions. */
export const nativeTypes = {
  GetErrorMessage: 'const char *(void *status)',
  ReleaseStatus: 'void (void *status)',
  Run: 'void *(void *session, void *options, void *inputNames, void *inputs, size_t inputCount, void *outputNames, size_t outputCount, void *outputs)',
} as const

type Koffi = typeof import('koffi').default
type NativeFunctions = ReturnType<typeof functionsAt>

/** This thread's, from its first program on: there is one library. */
let functions: NativeFunctions | undefined

function functionsAt({ library, run, getErrorMessage, releaseStatus }: NativeCalls) {
  // Not before it is needed: threads that run kernels only begin without it.
  const koffi: Koffi = createRequire(import.meta.url)('koffi')
  return {
    // Koffi makes room for a thread's calls when the thread loads a library, and not before; and unloads what nothing
    // refers to.
    library: koffi.load(library),
    run: koffi.decode(run, koffi.proto(nativeTypes.Run)),
    messageOf: koffi.decode(getErrorMessage, koffi.proto(nativeTypes.GetErrorMessage)),
    release: koffi.decode(releaseStatus, koffi.proto(nativeTypes.ReleaseStatus)),
  }
}

/** A function for each task that is run part by part: it runs the parts `from` to `to` (not included). */
export function partRunners(calls: NativeCalls): ReadonlyMap<number, (from: number, to: number) => void> {
  functions ??= functionsAt(calls)
  const { run, messageOf, release } = functions
  const runner = (parts: readonly NativeCall[]) => (from: number, to: number) => {
    for (let part = from; part < to; part++) {
      const [session, ...others] = parts[part]!
      const status = run(session, null, ...others)
      if (!status) continue
      const message: string = messageOf(status)
      release(status)
      throw new Error(message)
    }
  }
  return new Map([...calls.parts].map(([task, parts]) => [task, runner(parts)]))
}
