/** Reads a file of weights. Its content tells the format, not its name. */
import { open, readFile } from 'node:fs/promises'
import { FoveaError, UsageError } from '../util/errors.ts'
import { pickled, readKerasArchive } from './keras-archive.ts'
import { readKerasH5 } from './keras-h5.ts'
import { type FileLayer, foveaLayers, type NamedTensors } from './named-tensors.ts'
import { onnxLayers } from './onnx.ts'
import { decodeSafetensors } from './safetensors.ts'

/**
 * The tensors of a file: Keras's .h5, .weights.h5 and .keras, safetensors, or an ONNX model's initializers,
 * as float32.
 *
 * @throws UsageError where there is no such file; FoveaError where it is damaged, a pickle, or of no format
 *   that is known
 */
export async function readWeights(path: string): Promise<NamedTensors> {
  const start = await startOf(path)
  const begins = (...bytes: readonly number[]) => bytes.every((byte, i) => start[i] === byte)
  if (begins(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a))
    return { path, ...(await readKerasH5(path, path)) }
  if (begins(0x50, 0x4b)) return { path, format: 'keras', layers: await readKerasArchive(path) }
  // Pickles of the protocols 2 to 5.
  if (start[0] === 0x80 && start[1]! >= 2 && start[1]! <= 5) throw new FoveaError(`${path}: ${pickled(path)}`)
  if (start[8] === 0x7b)
    return { path, format: 'safetensors', layers: safetensorsLayers(await bytesOf(path), path) }
  // The first field of an ONNX model is the version of its format, a small number.
  if (start[0] === 0x08 && start[1]! < 0x40)
    return { path, format: 'onnx', layers: onnxLayers(await bytesOf(path), path) }
  throw new FoveaError(
    `${path}: expected a file of weights: Keras (.h5, .weights.h5, .keras), safetensors or ONNX; received ${showStart(start)}`,
  )
}

/** The first bytes of a file. */
async function startOf(path: string): Promise<Uint8Array> {
  try {
    const file = await open(path)
    try {
      const { buffer, bytesRead } = await file.read(new Uint8Array(16), 0, 16, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch (error) {
    throw unreadable(path, error as NodeJS.ErrnoException)
  }
}

async function bytesOf(path: string): Promise<Uint8Array> {
  return await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw unreadable(path, error)
  })
}

function unreadable(path: string, { code, message }: NodeJS.ErrnoException): FoveaError {
  if (code === 'ENOENT') return new UsageError(`${path}: expected a file of weights, there is none`)
  return new FoveaError(`${path}: cannot be read (${code ?? message})`)
}

function showStart(start: Uint8Array): string {
  if (start.length === 0) return 'an empty file'
  const isText = start.every(
    byte => (byte >= 0x20 && byte < 0x7f) || byte === 0x0a || byte === 0x0d || byte === 0x09,
  )
  if (isText) return `a text that begins with ${JSON.stringify(new TextDecoder().decode(start))}`
  return `a file that begins with ${[...start.subarray(0, 8)].map(byte => byte.toString(16).padStart(2, '0')).join(' ')}`
}

/** A checkpoint's optimizer is left out, and where it keeps the values of its best epoch, those are meant. */
function safetensorsLayers(bytes: Uint8Array, path: string): FileLayer[] {
  const all = Object.entries(decodeSafetensors(bytes, path).tensors)
  const best = all.filter(([name]) => name.startsWith('best/'))
  if (best.length > 0) return foveaLayers(best.map(([name, tensor]) => [name.slice('best/'.length), tensor]))
  return foveaLayers(all.filter(([name]) => !name.startsWith('optimizer/')))
}
