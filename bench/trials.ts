/** Whole trials, as studies run them: one after another on all cores, or as many at once as there are cores. */
import { FoveaError } from '../src/util/errors.ts'
import { type Images, modelOf, type Network } from './networks.ts'
import { type Peer, PeerProcess } from './peers.ts'
import type { Job } from './protocol.ts'

export interface TrialsKey {
  readonly network: Network
  readonly count: number
  readonly batch: number
  /** Of each trial. */
  readonly epochs: number
}

/** Seconds from the start of the first process to the end of the last, round by round. */
export interface PeerTrials {
  readonly name: string
  /** One process, all threads, trial after trial. */
  readonly inTurn?: readonly number[]
  /** A process of one thread on each core; each takes the next trial when it has ended one. */
  readonly atOnce?: readonly number[]
  readonly error?: string
}

export interface TrialsRow {
  readonly network: string
  readonly count: number
  readonly batch: number
  readonly epochs: number
  /** Images that all trials train on together. */
  readonly images: number
  readonly cores: number
  readonly peers: readonly PeerTrials[]
}

/** Trains `count` networks that differ in their seeds, and evaluates each, in both ways, in turns. */
export async function measureTrials(
  { network, count, batch, epochs }: TrialsKey,
  images: Images,
  peers: readonly Peer[],
  { rounds, cores, patience }: { rounds: number; cores: number; patience: number },
  say: (what: string) => void,
): Promise<TrialsRow> {
  const { shape, classes, images: file, labels } = images
  const job: Omit<Job, 'threads' | 'seed'> = {
    model: modelOf(network, images),
    images: file,
    labels,
    shape,
    classes,
    batch,
  }
  const steps = epochs * Math.floor(shape[0] / batch)
  const measured = new Map<string, { inTurn: number[]; atOnce: number[]; error?: string }>()
  for (let round = 0; round < rounds; round++)
    for (const peer of peers) {
      const row = measured.get(peer.name) ?? { inTurn: [], atOnce: [] }
      measured.set(peer.name, row)
      if (row.error !== undefined) continue
      const ways = [
        { times: row.inTurn, processes: 1, threads: cores, title: 'one after another' },
        { times: row.atOnce, processes: Math.min(cores, count), threads: 1, title: 'at once' },
      ]
      for (const { times, processes, threads, title } of ways) {
        say(`${peer.name}: ${count} trials ${title}, round ${round + 1} of ${rounds}`)
        try {
          times.push(await runAll(peer, { job: { ...job, threads }, count, steps, processes, patience }))
        } catch (error) {
          if (!(error instanceof FoveaError)) throw error
          row.error = error.message
          break
        }
      }
    }
  return {
    network: network.name,
    count,
    batch,
    epochs,
    images: count * steps * batch,
    cores,
    peers: [...measured].map(([name, { inTurn, atOnce, error }]) => ({
      name,
      ...(error === undefined ? { inTurn, atOnce } : { error }),
    })),
  }
}

interface Pool {
  readonly job: Omit<Job, 'seed'>
  readonly count: number
  readonly steps: number
  readonly processes: number
  readonly patience: number
}

/** @returns seconds of all together */
async function runAll(peer: Peer, { job, count, steps, processes, patience }: Pool): Promise<number> {
  let next = 1
  const began = performance.now()
  const workers = Array.from({ length: processes }, async () => {
    const worker = new PeerProcess(peer)
    try {
      while (next <= count) {
        await worker.ask({ do: 'prepare', ...job, seed: next++ }, patience)
        // The first step was one of them.
        await worker.ask({ do: 'train', steps: steps - 1 }, patience)
        await worker.ask({ do: 'evaluate', batches: Math.floor(10_000 / job.batch) }, patience)
      }
    } finally {
      await worker.end()
    }
  })
  await Promise.all(workers)
  return (performance.now() - began) / 1000
}
