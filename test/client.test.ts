import { expect, test } from 'vitest'
import { Client } from '../src/runtime/client.ts'
import type { Message } from '../src/runtime/protocol.ts'

const MB = 2 ** 20

const bytes = (count: number) => {
  const data = new Uint8Array(count).fill(1)
  return { dtype: 'uint8', shape: [count], data } as const
}

test('of a large tensor 32 MB are on their way at most, and what follows waits its turn', async () => {
  const received: Message[] = []
  const client: Client = new Client('cpu', 1, 'a host that answers when it is told to', {
    send: message => void received.push(message),
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
