/** Canonical hashes: the same content gives the same hash, on any platform. */
import { sha256 } from '@noble/hashes/sha2.js'
import { bytesToHex, utf8ToBytes } from '@noble/hashes/utils.js'

/** SHA-256 of bytes, in lower-case hexadecimal. */
export function hashBytes(bytes: Uint8Array): string {
  return bytesToHex(sha256(bytes))
}

/** SHA-256 of a JSON value with its keys sorted: independent of the order in which an object was built. */
export function hashJson(value: unknown): string {
  return hashBytes(utf8ToBytes(canonicalJson(value)))
}

/** JSON with sorted keys and without undefined members. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) => {
    if (member === null || typeof member !== 'object' || Array.isArray(member)) return member
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
  })
}

/** The first two 32-bit words of the SHA-256 of a text: a key for the random streams. */
export function hashWords(text: string): readonly [number, number] {
  const digest = sha256(utf8ToBytes(text))
  const view = new DataView(digest.buffer, digest.byteOffset)
  return [view.getUint32(0, true), view.getUint32(4, true)]
}
