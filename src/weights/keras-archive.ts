/**
 * Keras 3's `.keras` files: a zip archive with the model's description (config.json) and its weights
 * (model.weights.h5).
 */
import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { crc32 } from 'node:zlib'
import * as yauzl from 'yauzl'
import { FoveaError } from '../util/errors.ts'
import { inMebibytes, mostBytes } from './expansion.ts'
import { type LayerNames, readKerasH5 } from './keras-h5.ts'
import { snakeCase } from './keras-names.ts'
import type { FileLayer } from './named-tensors.ts'

const WEIGHTS = 'model.weights.h5'
const CONFIG = 'config.json'

/**
 * The layers of a `.keras` file.
 *
 * @throws FoveaError where the archive is damaged, or holds no model of Keras
 */
export async function readKerasArchive(path: string): Promise<FileLayer[]> {
  let zip: yauzl.ZipFile | undefined
  let folder: string | undefined
  try {
    zip = await yauzl.openPromise(path, { lazyEntries: true, autoClose: false })
    const entries = new Map<string, yauzl.Entry>()
    for await (const entry of zip.eachEntry()) entries.set(entry.fileName, entry)
    const [weights, config] = [entries.get(WEIGHTS), entries.get(CONFIG)]
    if (!weights || !config) throw new FoveaError(`${path}: ${whatElse([...entries.keys()], path)}`)
    checkSize(path, config, mostBytes(0))
    checkSize(path, weights, mostBytes(zip.fileSize))
    const names = layerNames(JSON.parse(await textOf(zip, config)))
    // The weights may be larger than what fits in memory twice, and the HDF5 library reads files only.
    folder = await mkdtemp(join(tmpdir(), 'fovea-keras-'))
    const extracted = join(folder, WEIGHTS)
    const stream = await zip.openReadStreamPromise(weights)
    await pipeline(stream, checked(weights), createWriteStream(extracted))
    return (await readKerasH5(extracted, `${path} (${WEIGHTS})`, names)).layers
  } catch (error) {
    if (error instanceof FoveaError) throw error
    const { code, syscall, message } = error as NodeJS.ErrnoException
    // A full disk, for one.
    if (syscall !== undefined) throw new FoveaError(`${path}: cannot be unpacked into ${tmpdir()} (${code})`)
    throw new FoveaError(`${path}: ${message}: the archive is damaged`)
  } finally {
    zip?.close()
    if (folder) await rm(folder, { recursive: true, force: true })
  }
}

/**
 * Throws where an entry would take far more than its archive does. yauzl fails where one is longer than it
 * says.
 */
function checkSize(path: string, { fileName, uncompressedSize }: yauzl.Entry, most: number): void {
  if (uncompressedSize <= most) return
  throw new FoveaError(
    `${path}: expected ${fileName} to take at most ${inMebibytes(most)} in such an archive, received one that takes ${inMebibytes(uncompressedSize)}`,
  )
}

function whatElse(names: readonly string[], path: string): string {
  if (names.some(name => name.endsWith('data.pkl'))) return pickled(path)
  return `expected an archive of Keras with ${WEIGHTS} and ${CONFIG}, received one with ${names.slice(0, 3).join(', ') || 'nothing'}`
}

/** Why a pickle is not read, and what to do. */
export function pickled(path: string): string {
  return `a pickle (PyTorch's .pt, .pth or .bin): reading one can run any code that is in it, so Fovea does not; export the network in PyTorch instead, with torch.onnx.export(model, images, "weights.onnx", external_data=False), and give that in the place of ${path.split(/[\\/]/).at(-1)}`
}

async function textOf(zip: yauzl.ZipFile, entry: yauzl.Entry): Promise<string> {
  const chunks: Buffer[] = []
  const stream: Readable = await zip.openReadStreamPromise(entry)
  for await (const chunk of stream.pipe(checked(entry))) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/** Passes an entry on and fails at its end where its checksum is wrong: yauzl leaves that to its users. */
function checked(entry: yauzl.Entry): Transform {
  let sum = 0
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sum = crc32(chunk, sum)
      done(undefined, chunk)
    },
    flush: done =>
      done(sum === entry.crc32 ? undefined : new Error(`${entry.fileName} has a wrong checksum`)),
  })
}

/** A layer as config.json describes it: what is used of it. */
interface LayerConfig {
  readonly class_name?: unknown
  readonly config?: { readonly name?: unknown; readonly layers?: unknown }
}

/**
 * The names of the layers, by the paths that Keras gives them in the file: class names, numbered within a
 * list.
 */
function layerNames(model: LayerConfig, at = ''): LayerNames {
  const names = new Map<string, string>()
  const numbers = new Map<string, number>()
  const layers = model.config?.layers
  for (const layer of Array.isArray(layers) ? (layers as LayerConfig[]) : []) {
    const { class_name, config } = layer
    if (typeof class_name !== 'string' || typeof config?.name !== 'string') continue
    const word = snakeCase(class_name)
    const number = numbers.get(word) ?? 0
    numbers.set(word, number + 1)
    const path = `${at}${word}${number === 0 ? '' : `_${number}`}`
    names.set(path, config.name)
    for (const [inner, name] of layerNames(layer, `${path}/`)) names.set(inner, name)
  }
  return names
}
