/** What the times of a row say: medians, spread, and ratios. */
import { median } from '../src/stats/summary.ts'
import type { PeerRow, Row, Task } from './measure.ts'

export interface Spread {
  readonly median: number
  readonly least: number
  readonly most: number
}

export interface Comparison {
  readonly peer: string
  /** The peer's time over Fovea's, round by round. Above 1 Fovea is faster. */
  readonly ratio: Spread
}

/** Median and range of at least one value. */
export function spread(values: readonly number[]): Spread {
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) }
}

/** Fovea beside the fastest of some peers, by the medians; undefined where either is missing. */
export function compare(
  { peers }: Row,
  task: Task,
  among: (name: string) => boolean = () => true,
): Comparison | undefined {
  const fovea = peers.find(({ name }) => name === 'fovea')?.[task]
  const others = peers
    .filter(peer => peer.name !== 'fovea' && peer[task] && among(peer.name))
    .sort((a, b) => spread(a[task]!).median - spread(b[task]!).median)
  const fastest = others[0]
  if (!fovea || !fastest) return undefined
  return { peer: fastest.name, ratio: spread(ratios(fastest[task]!, fovea)) }
}

/** A peer that was measured in fewer rounds is compared in those. */
function ratios(peer: readonly number[], fovea: readonly number[]): number[] {
  return peer.slice(0, fovea.length).map((ms, round) => ms / fovea[round]!)
}

/** The peak memory of Fovea over a peer's. */
export function memoryRatio({ peers }: Row, other: string): number | undefined {
  const of = (name: string) => peers.find(peer => peer.name === name)?.peakBytes
  const [mine, theirs] = [of('fovea'), of(other)]
  return mine === undefined || theirs === undefined ? undefined : mine / theirs
}

/**
 * The least milliseconds of a training step on a machine of such peaks: three products (forward, gradient of
 * the input, gradient of the weights) for each multiply-add, or Adam's reading and writing of weights,
 * gradients and two moments, whichever takes longer.
 */
export function limitMs(
  { multiplyAdds, parameters, batch }: Pick<Row, 'multiplyAdds' | 'parameters' | 'batch'>,
  { gflops, gigabytes }: { readonly gflops: number; readonly gigabytes: number },
): number {
  return Math.max((2 * 3 * multiplyAdds * batch) / gflops, (4 * 7 * parameters) / gigabytes) / 1e6
}

export const perSecond = (row: { readonly batch: number }, peer: PeerRow, task: Task): number | undefined =>
  peer[task] && (1000 * row.batch) / spread(peer[task]).median
