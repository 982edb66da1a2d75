/**
 * Reads one HDF5 file in a thread of its own: a damaged file can leave the HDF5 library unusable, and its
 * memory, as large as the largest tensor, is only given back with the thread.
 */
import { statSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import * as h5wasm from 'h5wasm/node'
import { inMebibytes, mostBytes } from './expansion.ts'
import type { Hdf5Answer, Hdf5Dataset, Hdf5Group, Hdf5Request } from './hdf5.ts'

const module = await h5wasm.ready
// Without it, HDF5 writes to the standard error and goes on with what it has.
module.activate_throwing_error_handler()

const { path, leaveOut } = workerData as Hdf5Request
const groups: Hdf5Group[] = []
const datasets: Hdf5Dataset[] = []
let bytesLeft = mostBytes(statSync(path).size)

try {
  const file = new h5wasm.File(path, 'r')
  visit(file, '')
  file.close()
  answer({ groups, datasets })
} catch (error) {
  answer({ failure: reasonOf(error) })
}

function visit(group: h5wasm.Group, at: string): void {
  const attributes = Object.entries(group.attrs).map(
    ([name, attribute]) => [name, textsOf(attribute)] as const,
  )
  groups.push({ path: at, attributes: Object.fromEntries(attributes) })
  for (const name of group.keys()) {
    const below = at === '' ? name : `${at}/${name}`
    if (leaveOut.includes(below)) continue
    const found = group.get(name)
    if (found instanceof h5wasm.Group) visit(found, below)
    else if (found instanceof h5wasm.Dataset) datasets.push(read(found, below))
    else throw new Error(`"${below}" is a link to nowhere or to another file`)
  }
}

/** Only texts are read: an empty list is stored as one of numbers. */
function textsOf(attribute: h5wasm.Attribute): string[] {
  const { value } = attribute
  const values = Array.isArray(value) ? value : [value]
  return values.filter(text => typeof text === 'string')
}

function read(dataset: h5wasm.Dataset, path: string): Hdf5Dataset {
  const { metadata } = dataset
  const { shape, size, total_size: count, type, littleEndian } = metadata
  const shapeOf = shape ?? []
  const kind = type === 0 ? 'integer' : type === 1 ? 'float' : undefined
  if (kind === undefined || !littleEndian)
    return { path, shape: shapeOf, kind: undefined, size, bytes: new Uint8Array(0) }
  bytesLeft -= size * count
  if (bytesLeft < 0)
    throw new Error(`"${path}" takes ${inMebibytes(size * count)}: too much for a file of this size`)
  const at = module._malloc(Math.max(1, size * count))
  if (at === 0) throw new Error(`"${path}" takes ${size * count} bytes: too many`)
  try {
    // The package's own getter refuses numbers of 16 bits.
    module.get_dataset_data(dataset.file_id, dataset.path, null, null, null, BigInt(at))
    return { path, shape: shapeOf, kind, size, bytes: module.HEAPU8.slice(at, at + size * count) }
  } finally {
    module._free(at)
  }
}

/** HDF5 tells a stack of reasons; the last is the cause. */
function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  const reasons = [...text.matchAll(/^ *#\d+: .*?\(\): (.*)$/gm)].map(match => match[1]!)
  return reasons.at(-1) ?? text.split('\n', 1)[0]!
}

function answer(message: Hdf5Answer): void {
  const transfer =
    'datasets' in message ? message.datasets.map(({ bytes }) => bytes.buffer as ArrayBuffer) : []
  parentPort!.postMessage(message, transfer)
}
