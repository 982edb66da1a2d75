/**
 * Large values on their way between an engine's process and its caller's: through a file that both hold open and that has
 * no name. What is written is read from the system's cache, several times as fast as messages are copied and put together
 * from small pieces. The caller's messages and the engine's replies say where in it a value lies.
 */
import { randomUUID } from 'node:crypto'
import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { arrayTypes, bytesOf } from '../util/host-tensor.ts'
import { ownTensor } from './ort-tensor.ts'
import type { Incoming, Message, Reply, Request, Tensors } from './protocol.ts'

const SLOT_BYTES = 8 * 2 ** 20
/** In each direction: while one process reads one, the other writes the next. */
const SLOTS = 4
/** What is smaller goes with its message. */
const LEAST_BYTES = 2 ** 16
const isLarge = ({ length }: Uint8Array): boolean => length >= LEAST_BYTES

/** Bytes in the file. */
interface Carried {
  readonly slot: number
  readonly length: number
}

/** A piece of a tensor of a reply that is to follow. */
interface Piece extends Carried {
  readonly id: number
  readonly name: string
  /** Of the whole tensor. */
  readonly bytes: number
  readonly offset: number
}

type Write = Extract<Request, { op: 'write' }>

/** What a caller's process sends. */
export type ToEngine =
  | Message
  | { readonly id: number; readonly request: Omit<Write, 'bytes'>; readonly carried: Carried }
  /** A piece was read. */
  | { readonly read: number }

/** What an engine's process sends; tensors of a reply that came in pieces have no data. */
export type ToCaller = Reply | { readonly piece: Piece }

/** The file; not open where there can be none, and once it was closed. */
export class CarrierFile {
  #descriptor: number | undefined

  constructor(descriptor: number | undefined) {
    this.#descriptor = descriptor
  }

  /** A new one, which has no name any more. */
  static open(): CarrierFile {
    try {
      const path = join(tmpdir(), `fovea-${randomUUID()}`)
      const descriptor = openSync(path, 'wx+', 0o600)
      unlinkSync(path)
      return new CarrierFile(descriptor)
    } catch {
      return new CarrierFile(undefined)
    }
  }

  get descriptor(): number | undefined {
    return this.#descriptor
  }

  /** @throws Error where the disk has no room */
  write(bytes: Uint8Array, slot: number): void {
    for (let at = 0; at < bytes.length; )
      at += writeSync(this.#descriptor!, bytes, at, bytes.length - at, slot * SLOT_BYTES + at)
  }

  read({ slot, length }: Carried, into: Uint8Array): void {
    for (let at = 0; at < length; ) {
      const count = readSync(this.#descriptor!, into, at, length - at, slot * SLOT_BYTES + at)
      if (count === 0) throw new Error(`carrier: expected ${length} bytes, received ${at}`)
      at += count
    }
  }

  /** Its number may then be that of another file. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }
}

/** What a process writes to the file, into slots from `first` on. */
class Outgoing {
  readonly #file: CarrierFile
  readonly #free: number[]
  #freed: (() => void) | undefined

  constructor(file: CarrierFile, first: number) {
    this.#file = file
    this.#free = Array.from({ length: SLOTS }, (_, i) => first + i)
  }

  /** Undefined where no slot is free, or the file cannot take them. */
  put(bytes: Uint8Array): Carried | undefined {
    const canTake = this.#file.descriptor !== undefined && bytes.length <= SLOT_BYTES
    const slot = canTake ? this.#free.pop() : undefined
    if (slot === undefined) return undefined
    try {
      this.#file.write(bytes, slot)
      return { slot, length: bytes.length }
    } catch {
      this.free(slot)
      return undefined
    }
  }

  free(slot: number): void {
    this.#free.push(slot)
    this.#freed?.()
  }

  /** Settled once a slot is free. One may wait. */
  async room(): Promise<void> {
    while (this.#free.length === 0)
      await new Promise<void>(resolve => {
        this.#freed = resolve
      })
  }
}

/** A request that has no reply yet. */
interface Underway {
  /** With its values. */
  readonly slot?: number
  /** What has come of its reply, by name. */
  readonly arrived: Map<string, Uint8Array<ArrayBuffer>>
  /** What spoils its reply. */
  failure?: string
}

/** The caller's end. */
export class CallerCarrier {
  readonly #file: CarrierFile
  readonly #outgoing: Outgoing
  readonly #underway = new Map<number, Underway>()

  constructor(file: CarrierFile) {
    this.#file = file
    this.#outgoing = new Outgoing(file, 0)
  }

  /** What to send for a message. */
  sent(message: Message): ToEngine {
    const { id, request } = message
    if (request.op !== 'write') return message
    const { bytes, ...rest } = request
    const carried = bytes instanceof Uint8Array && isLarge(bytes) ? this.#outgoing.put(bytes) : undefined
    if (!carried) return message
    this.#underway.set(id, { slot: carried.slot, arrived: new Map() })
    return { id, request: rest, carried }
  }

  /** The reply that has come; undefined where it is a piece of one, which `send` tells the engine was read. */
  received(message: ToCaller, send: (message: ToEngine) => void): Reply | undefined {
    if ('piece' in message) {
      this.#take(message.piece)
      send({ read: message.piece.slot })
      return undefined
    }
    const { id } = message
    const underway = this.#underway.get(id)
    this.#underway.delete(id)
    if (!underway) return message
    const { slot, arrived, failure } = underway
    if (slot !== undefined) this.#outgoing.free(slot)
    if (failure !== undefined) return { id, error: { usage: false, message: failure } }
    if (arrived.size === 0 || !('result' in message)) return message
    const result = Object.entries(message.result as Tensors).map(([name, tensor]) => {
      // One with data came with the message after all.
      const bytes = tensor.data === undefined ? arrived.get(name) : undefined
      return [name, bytes ? { ...tensor, data: new arrayTypes[tensor.dtype](bytes.buffer) } : tensor]
    })
    return { id, result: Object.fromEntries(result) }
  }

  #take(piece: Piece): void {
    const { id, name, bytes, offset, length } = piece
    const underway: Underway = this.#underway.get(id) ?? { arrived: new Map() }
    this.#underway.set(id, underway)
    if (underway.failure !== undefined) return
    try {
      const whole = underway.arrived.get(name) ?? new Uint8Array(bytes)
      underway.arrived.set(name, whole)
      this.#file.read(piece, whole.subarray(offset, offset + length))
    } catch (error) {
      underway.failure = (error as Error).message
    }
  }
}

/** The engine's end. */
export class EngineCarrier {
  readonly #file: CarrierFile
  readonly #outgoing: Outgoing

  constructor(file: CarrierFile) {
    this.#file = file
    this.#outgoing = new Outgoing(file, SLOTS)
  }

  /** The message that was sent; undefined where it only says that a piece was read. */
  received(message: ToEngine): Message | undefined {
    if ('read' in message) {
      this.#outgoing.free(message.read)
      return undefined
    }
    if (!('carried' in message)) return message
    const { id, request, carried } = message
    const bytes: Incoming = {
      length: carried.length,
      readInto: target => this.#file.read(carried, target),
    }
    return { id, request: { ...request, bytes } }
  }

  /** Sends a reply. Settled once the next request may change what its tensors lie in. */
  async deliver(reply: Reply, op: Request['op'], send: (message: ToCaller) => void): Promise<void> {
    if (!('result' in reply) || (op !== 'read' && op !== 'run')) {
      send(reply)
      return
    }
    const { id } = reply
    const result: Record<string, object> = {}
    for (const [name, tensor] of Object.entries(reply.result as Tensors)) {
      const isCarried = await this.#carry(id, name, bytesOf(tensor), send)
      result[name] = isCarried ? { ...tensor, data: undefined } : ownTensor(tensor)
    }
    send({ id, result })
  }

  /** False: not all of it can be carried. */
  async #carry(
    id: number,
    name: string,
    all: Uint8Array,
    send: (message: ToCaller) => void,
  ): Promise<boolean> {
    if (!isLarge(all)) return false
    for (let offset = 0; offset < all.length; offset += SLOT_BYTES) {
      await this.#outgoing.room()
      const carried = this.#outgoing.put(all.subarray(offset, offset + SLOT_BYTES))
      if (!carried) return false
      send({ piece: { ...carried, id, name, bytes: all.length, offset } })
    }
    return true
  }
}
