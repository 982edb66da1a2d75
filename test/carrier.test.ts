/** Large values between an engine's process and its caller's, with the file that carries them and without. */
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  CallerCarrier,
  CarrierFile,
  EngineCarrier,
  type ToCaller,
  type ToEngine,
} from '../src/runtime/carrier.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import type { Message, Reply } from '../src/runtime/protocol.ts'
import type { HostTensor } from '../src/util/host-tensor.ts'
import { sameBits } from './same-bits.ts'

const counted = (length: number, first = 0): HostTensor => ({
  dtype: 'float32',
  shape: [length],
  data: Float32Array.from({ length }, (_, i) => first + i),
})

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'carrier-test-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

/** More than the file has room for at once, the rest of a piece, and what goes with its message. */
const values = { large: counted(12_000_001), other: counted(20_000, 5), small: counted(3), none: counted(0) }

async function openedIn(directory: string): Promise<Engine> {
  vi.stubEnv('TMPDIR', directory)
  const engine = await openEngine({ threads: 1 })
  vi.unstubAllEnvs()
  return engine
}

describe('an engine', () => {
  const returned = async (directory: string) => {
    const engine = await openedIn(directory)
    try {
      await engine.write(values)
      return await engine.read(Object.keys(values))
    } finally {
      await engine.close()
    }
  }
  // ONNX Runtime has files of its own there.
  const ours = () => readdirSync(folder).filter(name => name.startsWith('fovea'))
  const differing = (found: Record<string, HostTensor>) =>
    Object.entries(values).flatMap(([name, tensor]) => (sameBits(found[name]!, tensor) ? [] : [name]))

  test('gives back what it was given', async () => {
    expect(differing(await returned(folder))).toEqual([])
  })

  test('does so where there can be no file', async () => {
    vi.stubEnv('TMPDIR', join(folder, 'missing'))
    expect(CarrierFile.open().descriptor).toBeUndefined()
    vi.unstubAllEnvs()
    expect(differing(await returned(join(folder, 'missing')))).toEqual([])
  })

  test('has a file that nobody finds, so that nothing is left of it however it ends', async () => {
    const file = CarrierFile.open()
    expect(file.descriptor).toBeTypeOf('number')
    file.close()
    const engine = await openedIn(folder)
    expect(ours()).toEqual([])
    await engine.close()
  })
})

describe('both ends', () => {
  const write = (id: number, data: Uint8Array): Message => ({
    id,
    request: {
      op: 'write',
      name: 'x',
      dtype: 'uint8',
      shape: [data.length],
      offset: 0,
      bytes: data,
      isLast: true,
    },
  })
  /** The tenth of a message's bytes, as the host gets it. */
  const tenthIn = (message: Message | undefined) => {
    if (message?.request.op !== 'write') return undefined
    const { bytes } = message.request
    const target = new Uint8Array(bytes.length)
    if ('readInto' in bytes) bytes.readInto(target)
    else target.set(bytes)
    return target[9]
  }
  const piece = (value: number) => new Uint8Array(2 ** 20).fill(value)
  const fileOf = (flags: string) => {
    const path = join(folder, 'file')
    writeFileSync(path, '')
    const descriptor = openSync(path, flags)
    rmSync(path)
    return descriptor
  }
  const endsOf = (descriptor: number) =>
    [new CallerCarrier(new CarrierFile(descriptor)), new EngineCarrier(new CarrierFile(descriptor))] as const
  const answered = async (engine: EngineCarrier, caller: CallerCarrier, reply: Reply) => {
    const replies: Reply[] = []
    const sent: ToCaller[] = []
    await engine.deliver(reply, 'read', message => {
      sent.push(structuredClone(message))
      // The caller is slower than the engine.
      setImmediate(() => {
        const whole = caller.received(message, answer => engine.received(answer))
        if (whole) replies.push(whole)
      })
    })
    await vi.waitUntil(() => replies.length > 0)
    return { sent, reply: replies[0] as { id: number; result: Record<string, HostTensor> } }
  }

  test('a slot is not written again before what is in it was read', () => {
    const descriptor = fileOf('w+')
    const [caller, engine] = endsOf(descriptor)
    const sent = Array.from({ length: 6 }, (_, i) => caller.sent(write(i, piece(i))))
    expect(sent.map(message => 'carried' in message)).toEqual([true, true, true, true, false, false])
    const received = sent.map(message => engine.received(message))
    expect(received.map(tenthIn)).toEqual([0, 1, 2, 3, 4, 5])
    caller.received({ id: 2, result: undefined }, () => {})
    const next = caller.sent(write(6, piece(6)))
    expect('carried' in next).toBe(true)
    expect([next, sent[0]!, sent[3]!].map(message => tenthIn(engine.received(message)))).toEqual([6, 0, 3])
    closeSync(descriptor)
  })

  test('a reply in pieces arrives whole, whatever else is on its way', async () => {
    const descriptor = fileOf('w+')
    const [caller, engine] = endsOf(descriptor)
    for (let i = 0; i < 4; i++) caller.sent(write(i, piece(i)))
    const { sent, reply } = await answered(engine, caller, { id: 9, result: values })
    expect(sent.filter(message => 'piece' in message)).toHaveLength(7)
    for (const [name, tensor] of Object.entries(values))
      expect(sameBits(reply.result[name]!, tensor)).toBe(true)
    closeSync(descriptor)
  })

  test('what is no tensor is left as it is', async () => {
    const engine = new EngineCarrier(CarrierFile.open())
    const sent: ToCaller[] = []
    for (const [op, result] of [
      ['profile', []],
      ['load', { program: 1, inputs: [], outputs: [] }],
      ['write', undefined],
    ] as const) {
      await engine.deliver({ id: 1, result }, op, message => void sent.push(message))
      expect(sent.pop()).toEqual({ id: 1, result })
    }
  })

  test('what the file cannot take goes with its message', async () => {
    const descriptor = fileOf('r')
    const [caller, engine] = endsOf(descriptor)
    for (let i = 0; i < 6; i++) expect(caller.sent(write(i, piece(i)))).toEqual(write(i, piece(i)))
    const { reply } = await answered(engine, caller, { id: 9, result: { other: values.other } })
    expect(sameBits(reply.result.other!, values.other)).toBe(true)
    closeSync(descriptor)
  })

  test('a piece that cannot be read fails its request', async () => {
    const [written, empty] = [fileOf('w+'), fileOf('w+')]
    const engine = new EngineCarrier(new CarrierFile(written))
    const caller = new CallerCarrier(new CarrierFile(empty))
    const { reply } = await answered(engine, caller, { id: 9, result: { other: values.other } })
    expect(reply).toEqual({
      id: 9,
      error: { usage: false, message: 'carrier: expected 80000 bytes, received 0' },
    })
    for (const descriptor of [written, empty]) closeSync(descriptor)
  })

  test('a closed file is left alone: its number may be that of another', () => {
    const file = CarrierFile.open()
    const caller = new CallerCarrier(file)
    file.close()
    const other = fileOf('w+')
    const message = write(1, piece(1))
    const sent: ToEngine = caller.sent(message)
    expect(sent).toBe(message)
    closeSync(other)
  })
})
