/**
 * Keyed, counter-based random numbers: Threefry-2x32 with 20 rounds.
 * Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 *
 * A stream is a pure function of its key and of the position in it, so that no stream depends on another:
 * adding a layer, a worker or a metric changes nothing else.
 */
import { hashWords } from './hash.ts'

/** Names a random stream. */
export interface Key {
  readonly words: readonly [number, number]
}

/** `key(seed, 'init', 'conv1/kernel')`: the stream of that seed and purpose. */
export function key(seed: number, ...path: readonly (string | number)[]): Key {
  return { words: hashWords(JSON.stringify([seed, ...path])) }
}

const PARITY = 0x1bd11bda
const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
] as const

/** One block: the counter (c0, c1) enciphered under the key (k0, k1); 20 rounds. Returns two uint32. */
export function threefry2x32(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const ks = [k0, k1, k0 ^ k1 ^ PARITY]
  let x0 = (c0 + k0) | 0
  let x1 = (c1 + k1) | 0
  for (let group = 0; group < 5; group++) {
    for (const r of ROTATIONS[group % 2]!) {
      x0 = (x0 + x1) | 0
      x1 = ((x1 << r) | (x1 >>> (32 - r))) ^ x0
    }
    x0 = (x0 + ks[(group + 1) % 3]!) | 0
    x1 = (x1 + ks[(group + 2) % 3]! + group + 1) | 0
  }
  return [x0 >>> 0, x1 >>> 0]
}

/** `count` random uint32. */
export function randomBits(key: Key, count: number): Uint32Array {
  const [k0, k1] = key.words
  const bits = new Uint32Array(count)
  for (let i = 0; i < count; i += 2) {
    const [a, b] = threefry2x32(k0, k1, i >>> 1, 0)
    bits[i] = a
    if (i + 1 < count) bits[i + 1] = b
  }
  return bits
}

/** `count` numbers, uniform in [0, 1), with 32 random bits each. */
export function uniform(key: Key, count: number): Float64Array {
  return Float64Array.from(randomBits(key, count), bits => bits / 2 ** 32)
}

/** `count` standard normal numbers, by the Box-Muller transform. */
export function normal(key: Key, count: number): Float64Array {
  const bits = randomBits(key, 2 * Math.ceil(count / 2))
  const values = new Float64Array(count)
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((bits[i]! + 1) / 2 ** 32))
    const angle = (2 * Math.PI * bits[i + 1]!) / 2 ** 32
    values[i] = radius * Math.cos(angle)
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle)
  }
  return values
}

/** `count` standard normal numbers drawn again until they fall within two deviations, as Keras truncates. */
export function truncatedNormal(key: Key, count: number): Float64Array {
  const values = new Float64Array(count)
  let filled = 0
  for (let round = 0; filled < count; round++) {
    const [k0, k1] = threefry2x32(key.words[0], key.words[1], round, 1)
    for (const value of normal({ words: [k0, k1] }, count - filled + 16)) {
      if (filled < count && Math.abs(value) <= 2) values[filled++] = value
    }
  }
  return values
}

/** The integers 0 .. count - 1 in random order (Fisher-Yates). */
export function permutation(key: Key, count: number): Int32Array {
  const order = Int32Array.from({ length: count }, (_, i) => i)
  const bits = randomBits(key, count)
  for (let i = count - 1; i > 0; i--) {
    // Multiply-shift keeps the bias below count / 2^32, unlike a modulus of few bits.
    const j = Math.floor((bits[i]! / 2 ** 32) * (i + 1))
    const swapped = order[i]!
    order[i] = order[j]!
    order[j] = swapped
  }
  return order
}

/** The `index`-th uint32 of a stream, without those before it. */
export function bitsAt(key: Key, index: number): number {
  return threefry2x32(key.words[0], key.words[1], index, 2)[0]
}
