/** One row of the bench: a network, a batch and a number of threads, by all peers in turns. */
import { setTimeout as pause } from 'node:timers/promises'
import { FoveaError } from '../src/util/errors.ts'
import type { Peaks } from './machine.ts'
import { forwardMultiplyAdds, type Images, modelOf, type Network } from './networks.ts'
import { type Peer, PeerProcess } from './peers.ts'
import type { Job } from './protocol.ts'

/** How long things take. Seconds. */
export interface Pace {
  readonly rounds: number
  /** A peer's turn in a round. */
  readonly turn: number
  /** For each variant of a peer. */
  readonly choose: number
  /** What is waited for a peer's first step, before which some compile; four times as long for its choice. */
  readonly firstStep: number
  /** What is waited for any other answer. */
  readonly patience: number
}

export interface RowKey {
  readonly network: string
  readonly batch: number
  readonly threads: number
}

/** Under what a row was measured: rows of several runs may stand in one table. */
export interface Conditions {
  /** See `codeName`. */
  readonly code: string
  /** Of the machine, with as many threads, when the run began. */
  readonly peaks: Peaks
}

export interface Row extends RowKey {
  readonly conditions: Conditions
  readonly dataSet: string
  readonly parameters: number
  /** Multiply-adds of one image forwards. */
  readonly multiplyAdds: number
  readonly peers: readonly PeerRow[]
}

/** What one peer did of a row. */
export interface PeerRow {
  readonly name: string
  readonly version?: string
  readonly variant?: string
  /** Milliseconds a step of each variant that was tried. */
  readonly tried?: Readonly<Record<string, number>>
  /** Seconds from the start of the process to the loss of the first step. */
  readonly startUp?: number
  /** Milliseconds a step (a batch), one for each round. */
  readonly train?: readonly number[]
  readonly evaluate?: readonly number[]
  /** Fraction 0..1 of the training images that were evaluated last, after all that training. */
  readonly accuracy?: number
  /** After the first steps of training, with the variant that the peer has by default. */
  readonly peakBytes?: number
  /** Why the rest is missing. */
  readonly error?: string
}

/** A peer under way in a row. */
interface Turn {
  readonly process: PeerProcess
  readonly row: { -readonly [K in keyof PeerRow]: PeerRow[K] }
}

export type Task = 'train' | 'evaluate'

/** Silence between turns: the threads of a runtime spin for a while after its last operation. */
const SILENCE_MS = 300

/** Some, because the first step of a runtime may plan its memory, and the second use it. */
const STEPS_BEFORE_MEMORY = 3

/** @param say told what is under way */
export async function measureRow(
  { network, batch, threads }: { network: Network; batch: number; threads: number },
  images: Images,
  peers: readonly Peer[],
  { conditions, pace }: { conditions: Conditions; pace: Pace },
  say: (what: string) => void,
): Promise<Row> {
  const model = modelOf(network, images)
  const { shape, classes, images: file, labels } = images
  const job: Job = { model, images: file, labels, shape, classes, batch, threads, seed: 1 }
  const living: Turn[] = []
  const rows: PeerRow[] = []
  let parameters: number | undefined
  try {
    for (const peer of peers) {
      say(`${peer.name}: the first step`)
      const turn: Turn = { process: new PeerProcess(peer), row: { name: peer.name } }
      rows.push(turn.row)
      living.push(turn)
      await attempt(living, turn, async () => {
        parameters = await prepare(turn, job, pace, parameters)
      })
    }
    for (const task of ['train', 'evaluate'] as const) await rounds(living, task, pace, say)
  } finally {
    await Promise.all(living.map(({ process }) => process.end()))
  }
  return {
    network: network.name,
    batch,
    threads,
    conditions,
    dataSet: network.dataSet,
    parameters: parameters ?? 0,
    multiplyAdds: forwardMultiplyAdds(model),
    peers: rows,
  }
}

/** A peer that fails says why in its row, and takes no further turn. */
async function attempt(living: Turn[], turn: Turn, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof FoveaError)) throw error
    turn.row.error = error.message
    living.splice(living.indexOf(turn), 1)
    await turn.process.end()
  }
}

/** @returns the number of parameters, which must be the same for all peers */
async function prepare({ process, row }: Turn, job: Job, pace: Pace, expected?: number): Promise<number> {
  const { version, parameters, firstStep } = await process.ask({ do: 'prepare', ...job }, pace.firstStep)
  row.version = version
  if (expected !== undefined && parameters !== expected)
    throw new FoveaError(`another network: expected ${expected} parameters, received ${parameters}`)
  row.startUp = (firstStep - process.started) / 1000
  await process.ask({ do: 'train', steps: STEPS_BEFORE_MEMORY }, pace.patience)
  // Before other variants of the same peer stand in memory beside it.
  row.peakBytes = (await process.ask({ do: 'memory' }, pace.patience)).peakBytes
  const { variant, tried } = await process.ask({ do: 'choose', seconds: pace.choose }, 4 * pace.firstStep)
  if (variant) row.variant = variant
  if (Object.keys(tried).length > 0) row.tried = tried
  return parameters
}

async function rounds(living: Turn[], task: Task, pace: Pace, say: (what: string) => void): Promise<void> {
  const counts = new Map<Turn, number>()
  const measured = new Map<Turn, number[]>(living.map(turn => [turn, []]))
  const run = async ({ process, row }: Turn, count: number) => {
    if (task === 'train') return (await process.ask({ do: 'train', steps: count }, pace.patience)).ms
    const { ms, accuracy } = await process.ask({ do: 'evaluate', batches: count }, pace.patience)
    row.accuracy = accuracy
    return ms
  }
  for (let round = -1; round < pace.rounds; round++)
    for (const turn of [...living]) {
      say(`${turn.row.name}: ${task}, ${round < 0 ? 'warm-up' : `round ${round + 1} of ${pace.rounds}`}`)
      await attempt(living, turn, async () => {
        if (round < 0) {
          const count = await turnLength(length => run(turn, length), pace)
          counts.set(turn, count)
          // A peer may have prepared itself for as many images as it was asked for last.
          if (task === 'evaluate' && count > 1) await run(turn, count)
          return
        }
        const count = counts.get(turn)!
        const times = measured.get(turn)!
        // One step that takes several turns is not asked for in every round.
        if (round > 0 && count === 1 && times[0]! > 5000 * pace.turn) return
        times.push((await run(turn, count)) / count)
        turn.row[task] = times
        await pause(SILENCE_MS)
      })
    }
}

/** How many steps fill a turn. */
async function turnLength(run: (count: number) => Promise<number>, { turn }: Pace): Promise<number> {
  let count = 1
  for (;;) {
    const ms = await run(count)
    if (ms >= 250 * turn || count >= 100_000) return Math.max(1, Math.round((1000 * turn * count) / ms))
    count = Math.max(count * 2, Math.round((300 * turn * count) / Math.max(ms, 0.01)))
  }
}
