import { setImmediate } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { sgd } from '../src/nn/optimizers.ts'
import { Client } from '../src/runtime/client.ts'
import type { Message } from '../src/runtime/protocol.ts'
import { loadWithState } from '../src/train/steps.ts'
import { compiled } from './step-program.ts'

const MB = 2 ** 20

const bytes = (count: number) => {
  const data = new Uint8Array(count).fill(1)
  return { dtype: 'uint8', shape: [count], data } as const
}

test('of a large tensor 32 MB are on their way at most, and what follows waits its turn', async () => {
  const received: Message[] = []
  const client: Client = new Client('cpu', 1, 'a host that answers when it is told to', {
    send: async message => void received.push(message),
    busy: () => {},
    end: async () => {},
  })
  const seen = () =>
    received.map(({ request }) => (request.op === 'write' ? request.bytes.length / MB : request.op))
  const done = Promise.all([
    client.write({ images: bytes(100 * MB), labels: bytes(MB) }),
    client.read(['labels']),
  ])
  expect(seen()).toEqual([8, 8, 8, 8])
  for (let answered = 0; answered < received.length; answered++) {
    client.receive({ id: received[answered]!.id, result: {} })
    if (answered === 0) expect(seen()).toEqual([8, 8, 8, 8, 8])
  }
  await done
  expect(seen()).toEqual([...new Array<number>(12).fill(8), 4, 1, 'read'])
})

test('first values are drawn once the program is on its way, and while it is being prepared', async () => {
  const program = compiled(sgd())
  const received: Message[] = []
  const { promise: left, resolve: leave } = Promise.withResolvers<void>()
  const client: Client = new Client('cpu', 1, 'a host that answers when it is told to', {
    send(message) {
      received.push(message)
      return left
    },
    busy: () => {},
    end: async () => {},
  })
  let drawn = 0
  const state = program.state.map(tensor => ({
    ...tensor,
    initial: (seed: number) => {
      drawn++
      return tensor.initial(seed)
    },
  }))
  const loading = loadWithState(client, { ...program, state }, 1)
  await setImmediate()
  expect(drawn).toBe(0)
  leave()
  await setImmediate()
  expect(received.map(({ request }) => (request.op === 'write' ? request.name : request.op))).toEqual([
    'load',
    ...state.map(({ name }) => name),
  ])
  for (const { id } of received)
    client.receive({ id, result: { program: 1, inputs: ['order'], outputs: [] } })
  expect((await loading).inputs).toEqual(['order'])
})

test('a program whose first state is refused is released', async () => {
  const program = compiled(sgd())
  const asked: string[] = []
  const client: Client = new Client('cpu', 1, 'a host that answers at once', {
    async send({ id, request }) {
      asked.push(request.op)
      const result = { program: 1, inputs: [], outputs: [] }
      queueMicrotask(() => client.receive({ id, result }))
    },
    busy: () => {},
    end: async () => {},
  })
  const [first] = program.state
  const known = { [first!.name]: { ...bytes(4), shape: [5] } }
  await expect(loadWithState(client, program, 1, known)).rejects.toThrow('expected 5 values')
  expect(asked.at(-1)).toBe('release')
})
