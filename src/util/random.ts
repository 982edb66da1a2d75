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

/** One block: the counter (c0, c1) enciphered under the key (k0, k1); 20 rounds. Returns two uint32. */
export function threefry2x32(k0: number, k1: number, c0: number, c1: number): [number, number] {
  const block = new Uint32Array(2)
  encipher(block, 0, k0, k1, c0, c1)
  return [block[0]!, block[1]!]
}

/** Writes a block at `bits[at]`. The rounds are written out: a network's first values take millions of blocks. */
function encipher(bits: Uint32Array, at: number, k0: number, k1: number, c0: number, c1: number): void {
  const k2 = k0 ^ k1 ^ PARITY
  let a = (c0 + k0) | 0
  let b = (c1 + k1) | 0
  a = (a + b) | 0
  b = ((b << 13) | (b >>> 19)) ^ a
  a = (a + b) | 0
  b = ((b << 15) | (b >>> 17)) ^ a
  a = (a + b) | 0
  b = ((b << 26) | (b >>> 6)) ^ a
  a = (a + b) | 0
  b = ((b << 6) | (b >>> 26)) ^ a
  a = (a + k1) | 0
  b = (b + k2 + 1) | 0
  a = (a + b) | 0
  b = ((b << 17) | (b >>> 15)) ^ a
  a = (a + b) | 0
  b = ((b << 29) | (b >>> 3)) ^ a
  a = (a + b) | 0
  b = ((b << 16) | (b >>> 16)) ^ a
  a = (a + b) | 0
  b = ((b << 24) | (b >>> 8)) ^ a
  a = (a + k2) | 0
  b = (b + k0 + 2) | 0
  a = (a + b) | 0
  b = ((b << 13) | (b >>> 19)) ^ a
  a = (a + b) | 0
  b = ((b << 15) | (b >>> 17)) ^ a
  a = (a + b) | 0
  b = ((b << 26) | (b >>> 6)) ^ a
  a = (a + b) | 0
  b = ((b << 6) | (b >>> 26)) ^ a
  a = (a + k0) | 0
  b = (b + k1 + 3) | 0
  a = (a + b) | 0
  b = ((b << 17) | (b >>> 15)) ^ a
  a = (a + b) | 0
  b = ((b << 29) | (b >>> 3)) ^ a
  a = (a + b) | 0
  b = ((b << 16) | (b >>> 16)) ^ a
  a = (a + b) | 0
  b = ((b << 24) | (b >>> 8)) ^ a
  a = (a + k1) | 0
  b = (b + k2 + 4) | 0
  a = (a + b) | 0
  b = ((b << 13) | (b >>> 19)) ^ a
  a = (a + b) | 0
  b = ((b << 15) | (b >>> 17)) ^ a
  a = (a + b) | 0
  b = ((b << 26) | (b >>> 6)) ^ a
  a = (a + b) | 0
  b = ((b << 6) | (b >>> 26)) ^ a
  a = (a + k2) | 0
  b = (b + k0 + 5) | 0
  bits[at] = a
  bits[at + 1] = b
}

/** `count` random uint32. */
export function randomBits({ words: [k0, k1] }: Key, count: number): Uint32Array {
  // The last of an odd number falls beyond the end, where an array drops what is written.
  const bits = new Uint32Array(count)
  for (let i = 0; i < count; i += 2) encipher(bits, i, k0, k1, i >>> 1, 0)
  return bits
}

/** `count` numbers, uniform in [0, 1), with 32 random bits each. */
export function uniform(key: Key, count: number): Float64Array {
  const bits = randomBits(key, count)
  const values = new Float64Array(count)
  for (let i = 0; i < count; i++) values[i] = bits[i]! / 2 ** 32
  return values
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
    const drawn = normal({ words: [k0, k1] }, count - filled + 16)
    for (let i = 0; i < drawn.length && filled < count; i++)
      if (Math.abs(drawn[i]!) <= 2) values[filled++] = drawn[i]!
  }
  return values
}

/** The integers 0 .. count - 1 in random order (Fisher-Yates). */
export function permutation(key: Key, count: number): Int32Array {
  const order = new Int32Array(count)
  for (let i = 0; i < count; i++) order[i] = i
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
