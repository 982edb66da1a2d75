/** The side of an engine that holds the tensors and the sessions; the same on every platform. */
import type { InferenceSession, Tensor } from 'onnxruntime-node'
import { FoveaError, UsageError } from '../util/errors.ts'
import { arrayTypes, bytesPerElement, type HostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
import type { RunTiming } from './engine.ts'
import { hostTensorOf, ortTensorOf } from './ort-tensor.ts'
import { runTimings } from './profile.ts'
import type { Loaded, Message, Names, Reply, Request, Tensors } from './protocol.ts'

/** What is used of ONNX Runtime's JavaScript packages, which share one interface. */
export type OrtModule = Pick<typeof import('onnxruntime-node'), 'InferenceSession' | 'Tensor'>

/** Where ONNX Runtime writes what it measures of one session. */
export interface Recording {
  readonly options: InferenceSession.SessionOptions
  /** The record's lines, once the session has ended it. */
  lines(): AsyncIterable<string>
  discard(): Promise<void>
}

interface Loading {
  readonly session: InferenceSession
  readonly recording: Recording | undefined
}

export class Host {
  readonly #ort: OrtModule
  readonly #options: InferenceSession.SessionOptions
  readonly #stored = new Map<string, Tensor>()
  readonly #arriving = new Map<string, Uint8Array<ArrayBuffer>>()
  readonly #record: () => Promise<Recording>
  readonly #sessions = new Map<number, Loading>()
  #loads = 0
  #last: Promise<unknown> = Promise.resolve()

  constructor(ort: OrtModule, options: InferenceSession.SessionOptions, record: () => Promise<Recording>) {
    this.#ort = ort
    this.#options = options
    this.#record = record
  }

  /** Answers after everything that was asked before. Never rejects. */
  answer({ id, request }: Message): Promise<Reply> {
    const reply = this.#last
      .then(() => this.#handle(request))
      .then(
        result => ({ id, result }),
        (error: unknown) => ({
          id,
          error: { usage: error instanceof UsageError, message: messageOf(error) },
        }),
      )
    this.#last = reply
    return reply
  }

  async #handle(request: Request): Promise<unknown> {
    if (request.op === 'write') return this.#write(request)
    if (request.op === 'read')
      return Object.fromEntries(
        request.names.map(name => [name, hostTensorOf(this.#get('read', name), name)]),
      )
    if (request.op === 'free') {
      for (const name of request.names) this.#get('free', name)
      for (const name of request.names) this.#stored.delete(name)
      return
    }
    if (request.op === 'load') return this.#load(request.bytes, request.profile)
    if (request.op === 'run') return this.#run(request.program, request.feeds, request.bind, request.keep)
    if (request.op === 'profile') return this.#profile(request.program)
    const { session, recording } = this.#loaded(request.program)
    this.#sessions.delete(request.program)
    await session.release()
    await recording?.discard()
  }

  #write({ name, dtype, shape, offset, bytes, isLast }: Extract<Request, { op: 'write' }>): void {
    const length = sizeOf(shape) * bytesPerElement[dtype]
    const all = offset === 0 ? new Uint8Array(length) : this.#arriving.get(name)!
    all.set(bytes, offset)
    if (!isLast) this.#arriving.set(name, all)
    else {
      this.#arriving.delete(name)
      this.#stored.set(
        name,
        ortTensorOf(this.#ort, { dtype, shape, data: new arrayTypes[dtype](all.buffer) }),
      )
    }
  }

  #get(where: string, name: string): Tensor {
    const tensor = this.#stored.get(name)
    if (tensor === undefined)
      throw new UsageError(`${where}: no tensor is stored as "${name}"; ${this.#names()}`)
    return tensor
  }

  #names(): string {
    return this.#stored.size === 0 ? 'nothing is stored' : `stored: ${[...this.#stored.keys()].join(', ')}`
  }

  async #load(bytes: Uint8Array, profile: boolean): Promise<Loaded> {
    const recording = profile ? await this.#record() : undefined
    const options = { ...this.#options, ...recording?.options }
    const session = await this.#ort.InferenceSession.create(bytes, options).catch(async (error: unknown) => {
      await recording?.discard()
      throw new FoveaError(`ONNX Runtime refuses the program: ${messageOf(error)}`)
    })
    const program = ++this.#loads
    this.#sessions.set(program, { session, recording })
    return { program, inputs: session.inputNames, outputs: session.outputNames }
  }

  #loaded(program: number): Loading {
    const loading = this.#sessions.get(program)
    if (loading === undefined) throw new UsageError('run: the program was released')
    return loading
  }

  async #profile(program: number): Promise<RunTiming[]> {
    const { session, recording } = this.#loaded(program)
    if (!recording)
      throw new UsageError(
        'profile: expected a program loaded with "profile" whose profile was not yet taken, received another',
      )
    session.endProfiling()
    this.#sessions.set(program, { session, recording: undefined })
    try {
      return await runTimings(recording.lines())
    } finally {
      await recording.discard()
    }
  }

  async #run(program: number, feeds: Tensors, bind: Names, keep: Names): Promise<Record<string, HostTensor>> {
    const { session } = this.#loaded(program)
    checkNames('input', [...Object.keys(feeds), ...Object.keys(bind)], session.inputNames)
    checkNames('output', Object.keys(keep), session.outputNames)
    checkOnce('stored name', Object.values(keep))

    const inputs = session.inputMetadata.map(declared => {
      const { name } = declared
      const fed = feeds[name]
      const tensor = fed ? ortTensorOf(this.#ort, fed) : this.#get(`run: input "${name}"`, bind[name] ?? name)
      if (declared.isTensor && !fits(tensor, declared)) {
        const expected = `${declared.type} ${showShape(declared.shape)}`
        const received = `${tensor.type} ${showShape(tensor.dims)}`
        throw new UsageError(`run: input "${name}": expected ${expected}, received ${received}`)
      }
      return [name, tensor] as const
    })
    const outputs = await session.run(Object.fromEntries(inputs)).catch((error: unknown) => {
      throw new FoveaError(`ONNX Runtime failed to run the program: ${messageOf(error)}`)
    })

    const results = Object.entries(outputs).filter(([name]) => keep[name] === undefined)
    const returned = Object.fromEntries(results.map(([name, tensor]) => [name, hostTensorOf(tensor, name)]))
    for (const [name, storedAs] of Object.entries(keep)) this.#stored.set(storedAs, outputs[name]!)
    return returned
  }
}

function fits(tensor: Tensor, declared: { type: string; shape: readonly (number | string)[] }): boolean {
  if (tensor.type !== declared.type) return false
  // A value of unknown rank has no shape here, and a scalar neither.
  if (declared.shape.length === 0) return true
  return (
    tensor.dims.length === declared.shape.length &&
    declared.shape.every((extent, i) => typeof extent !== 'number' || extent === tensor.dims[i])
  )
}

function checkNames(what: string, names: readonly string[], known: readonly string[]): void {
  for (const name of names)
    if (!known.includes(name))
      throw new UsageError(`run: the program has no ${what} "${name}"; it has: ${known.join(', ')}`)
  checkOnce(what, names)
}

function checkOnce(what: string, names: readonly string[]): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined) throw new UsageError(`run: ${what} "${twice}" is given twice`)
}

/** The first line, without the place in ONNX Runtime's source. */
function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text
    .trim()
    .split('\n', 1)[0]!
    .replace(/^\/\S+:\d+ .*? was false\. /, '')
}
