/** The side of an engine that holds the tensors and the sessions; the same on every platform. */
import { FoveaError, UsageError } from '../util/errors.ts'
import {
  bytesOf,
  type DType,
  type HostTensor,
  type Shape,
  sameShape,
  showShape,
  zeros,
} from '../util/host-tensor.ts'
import type { RunTiming } from './engine.ts'
import type { DeclaredInput, LoadedProgram, Loader, Recording } from './loaded-program.ts'
import { ownTensor } from './ort-tensor.ts'
import type { Loaded, Message, Names, Reply, Request, Tensors } from './protocol.ts'

type Deliver = (reply: Reply, op: Request['op']) => Promise<void>

export class Host {
  readonly #load: Loader
  readonly #record: () => Promise<Recording>
  readonly #deliver: Deliver
  readonly #stored = new Map<string, HostTensor>()
  readonly #arriving = new Map<string, HostTensor>()
  readonly #programs = new Map<number, LoadedProgram>()
  #loads = 0
  #last: Promise<void> = Promise.resolve()

  /**
   * @param deliver sends a reply to a request of this kind, whose tensors may lie in memory that threads share, and that
   *   the next request changes: settled once that may be handled
   */
  constructor(load: Loader, record: () => Promise<Recording>, deliver: Deliver) {
    this.#load = load
    this.#record = record
    this.#deliver = deliver
  }

  /** Answers after everything that was asked before. */
  answer(message: Message): void {
    this.#last = this.#last.then(() => this.#answer(message))
  }

  async #answer({ id, request }: Message): Promise<void> {
    try {
      await this.#deliver({ id, result: await this.#handle(request) }, request.op)
    } catch (error) {
      const usage = error instanceof UsageError
      await this.#deliver({ id, error: { usage, message: messageOf(error) } }, request.op)
    }
  }

  async #handle(request: Request): Promise<unknown> {
    if (request.op === 'write') return this.#write(request)
    if (request.op === 'read')
      return Object.fromEntries(request.names.map(name => [name, this.#get('read', name)]))
    if (request.op === 'free') {
      for (const name of request.names) this.#get('free', name)
      for (const name of request.names) this.#stored.delete(name)
      return
    }
    if (request.op === 'load') return this.#prepare(request.bytes, request.profile)
    if (request.op === 'run') return this.#run(request.program, request.feeds, request.bind, request.keep)
    if (request.op === 'profile') return this.#profile(request.program)
    const program = this.#loaded(request.program)
    this.#programs.delete(request.program)
    await program.release()
  }

  #write({ name, dtype, shape, offset, bytes, isLast }: Extract<Request, { op: 'write' }>): void {
    const tensor = offset === 0 ? this.#begun(name, dtype, shape) : this.#arriving.get(name)
    this.#arriving.delete(name)
    if (!tensor) throw new FoveaError(`write: a piece of "${name}" before this one was lost`)
    const target = bytesOf(tensor).subarray(offset, offset + bytes.length)
    if ('readInto' in bytes) bytes.readInto(target)
    else target.set(bytes)
    if (isLast) this.#stored.set(name, tensor)
    else this.#arriving.set(name, tensor)
  }

  /** Zeros that a tensor is to replace: where a program has it, so that it does not stand in memory twice. */
  #begun(name: string, dtype: DType, shape: Shape): HostTensor {
    this.#stored.delete(name)
    for (const program of this.#programs.values()) {
      const home = program.homeOf(name)
      if (home?.dtype !== dtype || !sameShape(home.shape, shape)) continue
      for (const [other, tensor] of this.#stored)
        if (program.overwrites(tensor) && tensor.data.byteOffset === home.data.byteOffset)
          this.#stored.set(other, ownTensor(tensor))
      bytesOf(home).fill(0)
      return home
    }
    return zeros(dtype, shape)
  }

  #get(where: string, name: string): HostTensor {
    const tensor = this.#stored.get(name)
    if (tensor === undefined)
      throw new UsageError(`${where}: no tensor is stored as "${name}"; ${this.#names()}`)
    return tensor
  }

  /** A stored tensor where the program can read it: from now on, so that many runs copy it once. */
  #bound(where: string, name: string, { readsShared }: LoadedProgram): HostTensor {
    const tensor = this.#get(where, name)
    const own = readsShared ? tensor : ownTensor(tensor)
    if (own !== tensor) this.#stored.set(name, own)
    return own
  }

  #names(): string {
    return this.#stored.size === 0 ? 'nothing is stored' : `stored: ${[...this.#stored.keys()].join(', ')}`
  }

  async #prepare(bytes: Uint8Array, profile: boolean): Promise<Loaded> {
    const recording = profile ? await this.#record() : undefined
    const loaded = await this.#load(bytes, recording).catch(async (error: unknown) => {
      await recording?.discard()
      throw new FoveaError(`ONNX Runtime refuses the program: ${messageOf(error)}`)
    })
    const program = ++this.#loads
    this.#programs.set(program, loaded)
    return { program, inputs: loaded.inputs.map(({ name }) => name), outputs: loaded.outputs }
  }

  #loaded(program: number): LoadedProgram {
    const loaded = this.#programs.get(program)
    if (loaded === undefined) throw new UsageError('run: the program was released')
    return loaded
  }

  async #profile(program: number): Promise<RunTiming[]> {
    const timings = await this.#loaded(program).profile()
    if (timings) return timings
    throw new UsageError(
      'profile: expected a program loaded with "profile" whose profile was not yet taken, received another',
    )
  }

  async #run(number: number, feeds: Tensors, bind: Names, keep: Names): Promise<Record<string, HostTensor>> {
    const program = this.#loaded(number)
    const names = program.inputs.map(({ name }) => name)
    checkNames('input', [...Object.keys(feeds), ...Object.keys(bind)], names)
    checkNames('output', Object.keys(keep), program.outputs)
    checkOnce('stored name', Object.values(keep))

    const inputs = program.inputs.map(declared => {
      const { name, dtype, shape } = declared
      const tensor = feeds[name] ?? this.#bound(`run: input "${name}"`, bind[name] ?? name, program)
      if (!fits(tensor, declared)) {
        const expected = `${dtype} ${showShape(shape ?? [])}`
        const received = `${tensor.dtype} ${showShape(tensor.shape)}`
        throw new UsageError(`run: input "${name}": expected ${expected}, received ${received}`)
      }
      return [name, tensor] as const
    })
    const replaced = new Set(Object.values(keep))
    for (const [name, tensor] of this.#stored)
      if (!replaced.has(name) && program.overwrites(tensor)) this.#stored.set(name, ownTensor(tensor))
    const outputs = await program.run(Object.fromEntries(inputs)).catch((error: unknown) => {
      if (error instanceof UsageError) throw error
      for (const [name, tensor] of this.#stored) if (program.overwrites(tensor)) this.#stored.delete(name)
      throw new FoveaError(`ONNX Runtime failed to run the program: ${messageOf(error)}`)
    })

    const results = Object.entries(outputs).filter(([name]) => keep[name] === undefined)
    for (const [name, storedAs] of Object.entries(keep)) this.#stored.set(storedAs, outputs[name]!)
    return Object.fromEntries(results)
  }
}

function fits(tensor: HostTensor, declared: DeclaredInput): boolean {
  if (tensor.dtype !== declared.dtype) return false
  const { shape } = declared
  if (shape === undefined) return true
  return (
    tensor.shape.length === shape.length &&
    shape.every((extent, i) => typeof extent !== 'number' || extent === tensor.shape[i])
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
