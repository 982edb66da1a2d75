/**
 * ONNX Runtime's C interface, as far as steps need it, in the library that onnxruntime-node brings: results are
 * written to memory that the caller owns, where onnxruntime-node's own interface copies each into new memory.
 */
import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import koffi, { type LibraryHandle } from 'koffi'
import { elementTypes } from '../../onnx/schema.ts'
import { FoveaError } from '../../util/errors.ts'
import type { HostTensor } from '../../util/host-tensor.ts'
import type { Tensors } from '../protocol.ts'
import { type NativeCall, type NativeCalls, nativeTypes } from './native-calls.ts'

/** An address in this process. */
type Pointer = bigint

export interface NativeOptions {
  readonly threads: number
  /** Begins the names of the files that ONNX Runtime's profiler writes. Default: it does not measure. */
  readonly profilePrefix?: string
}

/** The version of the interface that is asked for: it has all functions below, and newer libraries keep it. */
const API_VERSION = 17

/** Functions by their places in the table `OrtApi` of onnxruntime_c_api.h, which only grows at its end. */
const places = {
  GetErrorMessage: [2, nativeTypes.GetErrorMessage],
  CreateEnv: [3, 'void *(int level, const char *name, _Out_ void **env)'],
  CreateSessionFromArray: [
    8,
    'void *(void *env, const void *bytes, size_t length, void *options, _Out_ void **session)',
  ],
  Run: [9, nativeTypes.Run],
  CreateSessionOptions: [10, 'void *(_Out_ void **options)'],
  EnableProfiling: [
    14,
    `void *(void *options, ${process.platform === 'win32' ? 'const char16_t' : 'const char'} *prefix)`,
  ],
  DisableMemPattern: [17, 'void *(void *options)'],
  SetSessionLogSeverityLevel: [22, 'void *(void *options, int level)'],
  SetSessionGraphOptimizationLevel: [23, 'void *(void *options, int level)'],
  SetIntraOpNumThreads: [24, 'void *(void *options, int threads)'],
  SetInterOpNumThreads: [25, 'void *(void *options, int threads)'],
  CreateTensorWithDataAsOrtValue: [
    49,
    'void *(void *info, void *data, size_t bytes, const int64_t *shape, size_t rank, int type, _Out_ void **value)',
  ],
  CreateCpuMemoryInfo: [69, 'void *(int allocator, int memory, _Out_ void **info)'],
  AllocatorFree: [76, 'void *(void *allocator, void *block)'],
  GetAllocatorWithDefaultOptions: [78, 'void *(_Out_ void **allocator)'],
  ReleaseStatus: [93, nativeTypes.ReleaseStatus],
  ReleaseSession: [95, 'void (void *session)'],
  ReleaseValue: [96, 'void (void *value)'],
  ReleaseSessionOptions: [100, 'void (void *options)'],
  SessionEndProfiling: [110, 'void *(void *session, void *allocator, _Out_ void **path)'],
  AddSessionConfigEntry: [130, 'void *(void *options, const char *key, const char *value)'],
} as const

type FunctionName = keyof typeof places
type Functions = Readonly<Record<FunctionName, (...values: unknown[]) => unknown>>

/** ONNX Runtime's numbers: warnings are not for a person, all optimizations, memory from its arena. */
const [LOG_ERRORS, OPTIMIZE_ALL, FROM_ARENA, DEFAULT_MEMORY] = [3, 99, 1, 0]

export class NativeRuntime {
  /** Koffi unloads a library that nothing refers to. */
  readonly library: LibraryHandle
  /** For other threads. */
  readonly addresses: Omit<NativeCalls, 'parts'>
  readonly #functions: Functions
  readonly #environment: Pointer
  readonly #memoryInfo: Pointer

  /** @throws Error where the library is not there, or is of another kind */
  constructor() {
    const library = libraryPath()
    this.library = koffi.load(library)
    const base = koffi.decode(
      this.library.func('void *OrtGetApiBase()')(),
      koffi.array('void *', 1),
    ) as Pointer[]
    const getApi = koffi.decode(base[0], koffi.proto('void *(uint32_t version)'))
    const api = getApi(API_VERSION) as Pointer | null
    if (!api)
      throw new FoveaError(`ONNX Runtime: expected its C interface ${API_VERSION}, received an older one`)
    const length = 1 + Math.max(...Object.values(places).map(([place]) => place))
    const table = koffi.decode(api, koffi.array('void *', length)) as Pointer[]
    this.#functions = Object.fromEntries(
      Object.entries(places).map(([name, [place, type]]) => [
        name,
        koffi.decode(table[place], koffi.proto(type)),
      ]),
    ) as Functions
    this.addresses = {
      library,
      run: table[places.Run[0]]!,
      getErrorMessage: table[places.GetErrorMessage[0]]!,
      releaseStatus: table[places.ReleaseStatus[0]]!,
    }
    this.#environment = this.make('CreateEnv', LOG_ERRORS, 'fovea')
    this.#memoryInfo = this.make('CreateCpuMemoryInfo', FROM_ARENA, DEFAULT_MEMORY)
  }

  /** Calls a function that gives a status. */
  call(name: FunctionName, ...values: unknown[]): void {
    const status = this.#functions[name](...values)
    if (!status) return
    const message = this.#functions.GetErrorMessage(status) as string
    this.#functions.ReleaseStatus(status)
    throw new Error(message)
  }

  /** Calls a function that gives a status, and an object by its last argument. */
  make(name: FunctionName, ...values: unknown[]): Pointer {
    const made: [Pointer | null] = [null]
    this.call(name, ...values, made)
    return made[0]!
  }

  release(name: 'ReleaseSession' | 'ReleaseValue' | 'ReleaseSessionOptions', object: Pointer): void {
    this.#functions[name](object)
  }

  /** A value over the tensor's memory, which the caller keeps alive, and releases the value. */
  value({ dtype, shape, data }: HostTensor): Pointer {
    // One extent more than there are: an empty array has no address.
    const extents = BigInt64Array.from([...shape, 0].map(BigInt))
    return this.make(
      'CreateTensorWithDataAsOrtValue',
      this.#memoryInfo,
      koffi.address(data),
      data.byteLength,
      extents,
      shape.length,
      elementTypes[dtype],
    )
  }

  /** @throws Error where ONNX Runtime refuses the model */
  session(model: Uint8Array, { threads, profilePrefix }: NativeOptions): NativeSession {
    const options = this.make('CreateSessionOptions')
    try {
      this.call('SetIntraOpNumThreads', options, threads)
      this.call('SetInterOpNumThreads', options, 1)
      this.call('DisableMemPattern', options)
      this.call('SetSessionLogSeverityLevel', options, LOG_ERRORS)
      this.call('SetSessionGraphOptimizationLevel', options, OPTIMIZE_ALL)
      for (const [key, value] of Object.entries(entries))
        this.call('AddSessionConfigEntry', options, `session.${key}`, value)
      if (profilePrefix !== undefined) this.call('EnableProfiling', options, profilePrefix)
      const session = this.make('CreateSessionFromArray', this.#environment, model, model.byteLength, options)
      return new NativeSession(this, session)
    } finally {
      this.release('ReleaseSessionOptions', options)
    }
  }
}

/**
 * As in node-process.ts; and threads that wait for the next run leave their cores to the kernels' threads. Within a run
 * they wait for the next node as long as most take, and no longer: who else runs on the machine takes their place then,
 * and there are as many of them as sessions.
 */
const entries = {
  set_denormal_as_zero: '1',
  force_spinning_stop: '1',
  'intra_op.spin_duration_us': '50',
}

export class NativeSession {
  readonly #runtime: NativeRuntime
  readonly #session: Pointer

  constructor(runtime: NativeRuntime, session: Pointer) {
    this.#runtime = runtime
    this.#session = session
  }

  /** Prepares runs that read and write the same memory each time. */
  bind(inputs: BoundTensors, outputs: Tensors): NativeBinding {
    return new NativeBinding(this.#runtime, this.#session, inputs, outputs)
  }

  /** Runs once. */
  run(inputs: Tensors, outputs: Tensors): void {
    const binding = this.bind(inputs, outputs)
    try {
      binding.run()
    } finally {
      binding.release()
    }
  }

  endProfiling(): void {
    const allocator = this.#runtime.make('GetAllocatorWithDefaultOptions')
    const path = this.#runtime.make('SessionEndProfiling', this.#session, allocator)
    this.#runtime.call('AllocatorFree', allocator, path)
  }

  release(): void {
    this.#runtime.release('ReleaseSession', this.#session)
  }
}

/** Undefined: an input is given before a run. */
type BoundTensors = Readonly<Record<string, HostTensor | undefined>>

export const NOTHING: Pointer = 0n

export class NativeBinding {
  readonly #runtime: NativeRuntime
  /** Its own. */
  readonly #values: readonly Pointer[]
  readonly #inputs: BigUint64Array
  readonly #inputNames: readonly string[]
  readonly call: NativeCall
  /** Keeps what the call points to. */
  readonly held: readonly unknown[]

  constructor(runtime: NativeRuntime, session: Pointer, inputs: BoundTensors, outputs: Tensors) {
    this.#runtime = runtime
    const tensors = [...Object.values(inputs), ...Object.values(outputs)]
    const values = tensors.map(tensor => (tensor ? runtime.value(tensor) : NOTHING))
    this.#values = values.filter(value => value !== NOTHING)
    const names = [...Object.keys(inputs), ...Object.keys(outputs)].map(name => Buffer.from(`${name}\0`))
    const count = Object.keys(inputs).length
    const pointers = names.map(name => koffi.address(name))
    const lists = [pointers, values].flatMap(list => [list.slice(0, count), list.slice(count)])
    // Small arrays may be moved, shared ones stay; and one word more than there are: of nothing there is no address.
    const fixed = lists.map(list => {
      const words = new BigUint64Array(new SharedArrayBuffer(8 * (list.length + 1)))
      words.set(list)
      return words
    })
    this.held = [tensors, names, fixed]
    this.#inputs = fixed[2]!
    this.#inputNames = Object.keys(inputs)
    const [inputNames, outputNames, inputValues, outputValues] = fixed.map(words => koffi.address(words))
    this.call = [
      ...([session, inputNames!, inputValues!, BigInt(count)] as const),
      ...([outputNames!, BigInt(tensors.length - count), outputValues!] as const),
    ]
  }

  /** Gives an input a value, which the caller keeps alive for runs to come. */
  give(name: string, value: Pointer): void {
    this.#inputs[this.#inputNames.indexOf(name)] = value
  }

  run(): void {
    const [session, ...others] = this.call
    this.#runtime.call('Run', session, null, ...others)
  }

  release(): void {
    for (const value of this.#values) this.#runtime.release('ReleaseValue', value)
  }
}

/** On Linux, macOS and Windows. */
const libraries = ['libonnxruntime.so.1', 'libonnxruntime.1.dylib', 'onnxruntime.dll']

/** The library that onnxruntime-node has loaded, or would load. */
function libraryPath(): string {
  const entry = createRequire(import.meta.url).resolve('onnxruntime-node')
  const bin = join(dirname(entry), '..', 'bin')
  const version = readdirSync(bin).find(name => name.startsWith('napi-'))
  const folder = join(bin, version ?? '', process.platform, process.arch)
  const library = readdirSync(folder).find(name => libraries.includes(name))
  if (!library) throw new FoveaError(`${folder}: expected ONNX Runtime's library, received none`)
  return join(folder, library)
}
