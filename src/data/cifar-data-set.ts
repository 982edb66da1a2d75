/** Loads a data set that is published as CIFAR's archives, from the first place that has it whole. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { FoveaError, UsageError } from '../util/errors.ts'
import { defaultCacheDir } from './cache.ts'
import { type BinaryLayout, type PythonLayout, readBatches, readClassNames } from './cifar-batch.ts'
import { hashContent } from './content-hash.ts'
import type { DataSet, DataSetDescription, LoadOptions } from './data-set.ts'
import { fetchFromMirrors } from './mirrors.ts'
import { checkFolder, digest, gunzipStored, readStored } from './stored-file.ts'
import { readTar } from './tar.ts'

/** One way in which the data set is published. */
interface PublishedForm {
  /** A gzip tar of the folder, and the MD5 of it. */
  readonly archive: { readonly name: string; readonly md5: string }
  readonly folder: string
  /** The training images' files, each with as many as the others. */
  readonly train: readonly string[]
  readonly test: readonly string[]
  /** The file that states the classes' names. */
  readonly classNames: string
}

/** A data set of CIFAR's kind: what it is, and where it can come from. */
export interface CifarDefinition extends Omit<DataSetDescription, 'classCount'> {
  readonly classes: readonly string[]
  readonly binary: PublishedForm & BinaryLayout
  readonly python: PublishedForm & PythonLayout
  /** The cache's folder: data sets of the same images share one. */
  readonly cacheFolder: string
  /** Base addresses that end with a slash; the archive's address is this and its name. */
  readonly mirrors: readonly string[]
}

type Form = CifarDefinition['binary'] | CifarDefinition['python']

/** One file of a form by its name; undefined where there is none. */
type ReadFile = (name: string) => Promise<{ file: string; bytes: Uint8Array } | undefined>

/**
 * Loads from, in this order: the folder that the user names (alone, then); Fovea's cache; the publisher's
 * addresses. What is downloaded is checked and kept in the cache. Throws where an archive of the cache is
 * there but cannot be read: another copy, put over it, would lose it and hide what is wrong.
 */
export async function loadCifarDataSet(definition: CifarDefinition, options: LoadOptions): Promise<DataSet> {
  if (options.folder !== undefined) return await loadCifarFolder(definition, options.folder)
  const tried: string[] = []
  const cache = join(options.cacheDir ?? defaultCacheDir(), definition.cacheFolder)
  for (const form of [definition.binary, definition.python]) {
    const path = join(cache, form.archive.name)
    const content = await readStored(path)
    if (content === undefined) tried.push(`the cache ${cache} (no ${form.archive.name})`)
    else if (!isPublished(form, content))
      tried.push(`the cache ${cache} (${form.archive.name}: wrong checksum)`)
    else return await assemble(definition, form, await unpack(path, form, content), `the cache ${cache}`)
  }
  const { binary } = definition
  const { contents, used, failures, notCached } = await fetchFromMirrors(
    [
      {
        name: binary.archive.name,
        async read(path) {
          const content = await readStored(path)
          return content !== undefined && isPublished(binary, content) ? content : undefined
        },
      },
    ],
    options.mirrors ?? definition.mirrors,
    cache,
    options,
  )
  const [content] = contents
  if (content !== undefined) {
    const kept = notCached === undefined ? `kept in ${cache}` : `not cached: ${notCached}`
    const read = await unpack(binary.archive.name, binary, content)
    return await assemble(definition, binary, read, `${used.join(' and ')}, ${kept}`)
  }
  throw new FoveaError(
    `${definition.name} was found nowhere. Tried: ${[...tried, ...failures].join('; ')}. Connect to the network, or name a folder that holds ${placesOf(definition)}`,
  )
}

/** Loads from one folder: an unpacked one, the one that holds it, or one with an archive. */
async function loadCifarFolder(definition: CifarDefinition, folder: string): Promise<DataSet> {
  await checkFolder(definition.name, folder)
  const forms = [definition.binary, definition.python]
  const places = [folder, ...forms.map(form => join(folder, form.folder))]
  let incomplete: string | undefined
  for (const place of places) {
    for (const form of forms) {
      const wanted = [...form.train, ...form.test]
      const there = await Promise.all(wanted.map(name => isFile(join(place, name))))
      if (there.every(Boolean))
        return await assemble(definition, form, readFrom(place), `the folder ${place}`)
      if (there.some(Boolean))
        incomplete ??= `the folder ${place} lacks a file: no ${wanted[there.indexOf(false)]}`
    }
  }
  for (const form of forms) {
    const path = join(folder, form.archive.name)
    const content = await readStored(path)
    if (content === undefined) continue
    const data = await assemble(definition, form, await unpack(path, form, content), `the file ${path}`)
    if (isPublished(form, content)) return data
    const note = 'not the published checksum'
    return { ...data, source: `${data.source} (note: ${note})`, notes: [note] }
  }
  throw new UsageError(
    `${definition.name}: ${incomplete ?? `the folder ${folder} does not hold it`}; expected ${placesOf(definition)}`,
  )
}

function placesOf({ binary, python }: CifarDefinition): string {
  return `${binary.archive.name}, ${python.archive.name}, or one of them unpacked (${binary.folder}, ${python.folder})`
}

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    found => found.isFile(),
    () => false,
  )
}

function readFrom(folder: string): ReadFile {
  return async name => {
    const file = join(folder, name)
    const bytes = await readStored(file)
    return bytes && { file, bytes }
  }
}

function isPublished({ archive }: Form, content: Uint8Array): boolean {
  return digest('md5', content) === archive.md5
}

async function unpack(path: string, { folder }: Form, content: Uint8Array): Promise<ReadFile> {
  const bytes = await gunzipStored({ file: path, bytes: content })
  const files = readTar({ file: path, bytes })
  return async name => {
    const found = files.get(`${folder}/${name}`)
    return found && { file: `${path}: ${folder}/${name}`, bytes: found }
  }
}

async function assemble(
  definition: CifarDefinition,
  form: Form,
  read: ReadFile,
  source: string,
): Promise<DataSet> {
  const { name, title, imageShape, classes } = definition
  const stated = await read(form.classNames)
  if (stated !== undefined) checkClassNames(stated.file, readClassNames(stated, form), classes)
  const split = async (names: readonly string[], count: number) => {
    const files = []
    for (const wanted of names) {
      const found = await read(wanted)
      if (found === undefined) throw new FoveaError(`${source} lacks a file: no ${form.folder}/${wanted}`)
      files.push(found)
    }
    return readBatches(files, form, count, imageShape, classes.length)
  }
  const train = await split(form.train, definition.train)
  const test = await split(form.test, definition.test)
  return { name, title, imageShape, classes, train, test, hash: hashContent(train, test), source }
}

function checkClassNames(file: string, received: readonly string[], expected: readonly string[]): void {
  if (received.length !== expected.length)
    throw new FoveaError(`${file}: expected ${expected.length} class names, received ${received.length}`)
  const wrong = expected.findIndex((name, i) => received[i] !== name)
  if (wrong >= 0)
    throw new FoveaError(
      `${file}: class ${wrong}: expected "${expected[wrong]}", received "${received[wrong]}"`,
    )
}
