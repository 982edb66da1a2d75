/**
 * The caller's side of an engine: turns calls into messages and replies into values;
 * the same on every platform.
 */
import { FoveaError, UsageError } from '../util/errors.ts'
import { arrayTypes, bytesOf, type HostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
import type { Device, Engine, Program, ProgramOptions, RunCall, RunTiming } from './engine.ts'
import type { Loaded, Message, Reply, Request } from './protocol.ts'

/** How messages get to the host. */
export interface Transport {
  /** Sends a copy: the values may change afterwards. Settled once it has left this thread. */
  send(message: Message): Promise<void>
  /** Told when the first reply is awaited and when none is any more. */
  busy(awaiting: boolean): void
  /** Ends the host, which has nothing left to do. */
  end(): Promise<void>
}

interface Waiting {
  readonly resolve: (result: unknown) => void
  readonly reject: (error: Error) => void
  /** Of a piece of a tensor; 0 of all else. */
  readonly bytes: number
}

/**
 * Pieces of this size keep the serializer's buffer, which doubles as it grows, from
 * taking twice the data set.
 */
const PIECE_BYTES = 8 * 2 ** 20
/** Pieces that are on their way at once: each is a copy, and all of a data set would be a second one. */
const MOST_BYTES_ON_THE_WAY = 4 * PIECE_BYTES

export class Client implements Engine {
  readonly device: Device
  readonly threads: number
  readonly version: string
  readonly #transport: Transport
  readonly #waiting = new Map<number, Waiting>()
  /** Asked, but not sent yet, in order. */
  readonly #unsent: Message[] = []
  /** Of the last message that was sent. */
  #sent: Promise<void> = Promise.resolve()
  #bytesOnTheWay = 0
  #asked = 0
  /** Set when the engine takes no more requests: why not. */
  #over: FoveaError | undefined
  #idle: (() => void) | undefined
  #closing: Promise<void> | undefined

  constructor(device: Device, threads: number, version: string, transport: Transport) {
    this.device = device
    this.threads = threads
    this.version = version
    this.#transport = transport
  }

  async write(values: Readonly<Record<string, HostTensor>>): Promise<void> {
    for (const [name, tensor] of Object.entries(values)) checkTensor(`write: "${name}"`, tensor)
    const replies = Object.entries(values).flatMap(([name, tensor]) => {
      const { dtype, shape } = tensor
      const bytes = withoutZerosAtEnd(bytesOf(tensor))
      const pieces = Math.max(1, Math.ceil(bytes.length / PIECE_BYTES))
      return Array.from({ length: pieces }, (_, i) => {
        const offset = i * PIECE_BYTES
        const piece = bytes.subarray(offset, offset + PIECE_BYTES)
        return this.#ask({ op: 'write', name, dtype, shape, offset, bytes: piece, isLast: i === pieces - 1 })
      })
    })
    await Promise.all(replies)
  }

  async read(names: readonly string[]): Promise<Record<string, HostTensor>> {
    return ownValues(await this.#ask({ op: 'read', names }))
  }

  async free(names: readonly string[]): Promise<void> {
    await this.#ask({ op: 'free', names })
  }

  async load(bytes: Uint8Array, { profile = false }: ProgramOptions = {}): Promise<Program> {
    const { program, inputs, outputs } = (await this.#ask({ op: 'load', bytes, profile })) as Loaded
    return {
      inputs,
      outputs,
      run: async ({ feeds = {}, bind = {}, keep = {} }: RunCall = {}) => {
        for (const [name, tensor] of Object.entries(feeds)) checkTensor(`run: input "${name}"`, tensor)
        return ownValues(await this.#ask({ op: 'run', program, feeds, bind, keep }))
      },
      profile: async () => (await this.#ask({ op: 'profile', program })) as readonly RunTiming[],
      release: async () => {
        await this.#ask({ op: 'release', program })
      },
    }
  }

  sent(): Promise<void> {
    return this.#sent
  }

  close(): Promise<void> {
    this.#closing ??= this.#end()
    return this.#closing
  }

  /** A reply has come. */
  receive(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    this.#bytesOnTheWay -= waiting?.bytes ?? 0
    this.#send()
    if ('result' in reply) waiting?.resolve(reply.result)
    else waiting?.reject(new (reply.error.usage ? UsageError : FoveaError)(reply.error.message))
    this.#settle()
  }

  /** The host is gone: nothing will be answered any more. */
  fail(error: FoveaError): void {
    this.#over ??= error
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
    this.#unsent.length = 0
    this.#settle()
  }

  #ask(request: Request): Promise<unknown> {
    if (this.#over) return Promise.reject(this.#over)
    return new Promise((resolve, reject) => {
      const id = ++this.#asked
      const bytes = request.op === 'write' ? request.bytes.length : 0
      this.#waiting.set(id, { resolve, reject, bytes })
      if (this.#waiting.size === 1) this.#transport.busy(true)
      this.#unsent.push({ id, request })
      this.#send()
    })
  }

  #send(): void {
    for (;;) {
      const [message] = this.#unsent
      if (!message) return
      const { bytes, reject } = this.#waiting.get(message.id)!
      if (this.#bytesOnTheWay > 0 && this.#bytesOnTheWay + bytes > MOST_BYTES_ON_THE_WAY) return
      this.#unsent.shift()
      try {
        this.#sent = this.#transport.send(message)
        this.#bytesOnTheWay += bytes
      } catch (error) {
        // Never sent, it is never answered: `close` must not wait for it.
        this.#waiting.delete(message.id)
        this.#settle()
        reject(new FoveaError(`the engine was not reached: ${(error as Error).message}`))
      }
    }
  }

  async #end(): Promise<void> {
    this.#over ??= new FoveaError('the engine is closed')
    if (this.#waiting.size > 0) {
      await new Promise<void>(resolve => {
        this.#idle = resolve
      })
    }
    await this.#transport.end()
  }

  #settle(): void {
    if (this.#waiting.size > 0) return
    this.#transport.busy(false)
    this.#idle?.()
  }
}

/** An optimizer's state is zeros at first: twice the parameters, which need not travel. */
function withoutZerosAtEnd(bytes: Uint8Array): Uint8Array {
  const { buffer, byteOffset } = bytes
  let end = bytes.length
  if (byteOffset % 4 === 0 && end % 4 === 0) {
    // One by one, the state of 20 million parameters takes a sixth of a second.
    const words = new Uint32Array(buffer, byteOffset, end / 4)
    while (end > 0 && words[end / 4 - 1] === 0) end -= 4
  }
  while (end > 0 && bytes[end - 1] === 0) end--
  return bytes.subarray(0, end)
}

function checkTensor(where: string, { dtype, shape, data }: HostTensor): void {
  const arrayType = arrayTypes[dtype]
  if (arrayType === undefined)
    throw new UsageError(`${where}: expected one of ${Object.keys(arrayTypes).join(', ')}, received ${dtype}`)
  if (!(data instanceof arrayType))
    throw new UsageError(
      `${where}: ${dtype} expects a ${arrayType.name}, received a ${data.constructor.name}`,
    )
  if (data.length !== sizeOf(shape)) {
    const expected = `${sizeOf(shape)} values for the shape ${showShape(shape)}`
    throw new UsageError(`${where}: expected ${expected}, received ${data.length}`)
  }
}

/**
 * Arrays of a reply may be views of the whole message: with memory of their own they can
 * outlive it, or be transferred.
 */
function ownValues(reply: unknown): Record<string, HostTensor> {
  const tensors = Object.entries(reply as Record<string, HostTensor>)
  return Object.fromEntries(
    tensors.map(([name, tensor]) => {
      const { data } = tensor
      return [name, data.byteLength === data.buffer.byteLength ? tensor : { ...tensor, data: data.slice() }]
    }),
  )
}
