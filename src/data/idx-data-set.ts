/** Loads a data set that is published as four IDX files, from the first place that has it whole. */
import { copyFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { FoveaError, UsageError } from '../util/errors.ts'
import { sameShape, showShape } from '../util/host-tensor.ts'
import { withAptPackage } from './apt.ts'
import { defaultCacheDir, withPartial } from './cache.ts'
import { hashContent } from './content-hash.ts'
import type { DataSet, DataSetDescription, LoadOptions } from './data-set.ts'
import { reasonOf } from './download.ts'
import { parseLabelledImages } from './idx.ts'
import { type IdxContent, type IdxFile, readIdxFile, readStoredFile } from './idx-file.ts'
import { fetchFromMirrors, type PublishedFile } from './mirrors.ts'
import { checkFolder, UnreadableFile } from './stored-file.ts'

/** A data set of four IDX files: what it is, and where it can come from. */
export interface IdxDefinition extends Omit<DataSetDescription, 'classCount'> {
  readonly classes: readonly string[]
  readonly files: {
    readonly trainImages: IdxFile
    readonly trainLabels: IdxFile
    readonly testImages: IdxFile
    readonly testLabels: IdxFile
  }
  /** Base addresses that end with a slash; a file's address is this and its name with `.gz`. */
  readonly mirrors: readonly string[]
  /** Debian's package, and the folder into which it installs the files. */
  readonly debian?: { readonly package: string; readonly folder: string }
}

/** A file's content, or the reason why a place does not have it. */
type Found = IdxContent | string

/**
 * Loads from, in this order: the folder that the user names (alone, then); Fovea's cache; Debian's package if
 * it is installed; the publisher's addresses; Debian's package by apt-get. What is downloaded is checked and
 * kept in the cache. Throws where a file of the cache or of the package is there but cannot be read.
 */
export async function loadIdxDataSet(definition: IdxDefinition, options: LoadOptions): Promise<DataSet> {
  if (options.folder !== undefined) return await loadIdxFolder(definition, options.folder)
  const tried: string[] = []
  const cache = join(options.cacheDir ?? defaultCacheDir(), definition.name)
  const cached = await readPublished(definition, cache)
  if (isComplete(cached)) return assemble(definition, cached, `the cache ${cache}`)
  tried.push(`the cache ${cache} (${firstProblem(cached)})`)

  if (definition.debian !== undefined) {
    const folder = options.debianDir ?? definition.debian.folder
    const installed = await readPublished(definition, folder)
    const label = `Debian's package ${definition.debian.package} in ${folder}`
    if (isComplete(installed)) return assemble(definition, installed, label)
    tried.push(`${label} (${firstProblem(installed)})`)
  }
  for (const fetchInto of [fetchFromPublisher, fetchFromApt]) {
    const { found, origin, notCached } = await fetchInto(definition, cache, cached, options, tried)
    const kept = notCached === undefined ? `kept in ${cache}` : `not cached: ${notCached}`
    if (isComplete(found)) return assemble(definition, found, `${origin}, ${kept}`)
  }
  throw new FoveaError(
    `${definition.name} was found nowhere. Tried: ${tried.join('; ')}. ${advice(definition)}`,
  )
}

/**
 * Loads from one folder. Checksums are not demanded; `source` says where a file differs from the published
 * one.
 */
export async function loadIdxFolder(
  definition: IdxDefinition,
  folder: string,
  label = `the folder ${folder}`,
): Promise<DataSet> {
  await checkFolder(definition.name, folder)
  const found = await Promise.all(filesOf(definition).map(file => readIdxFile(folder, file)))
  if (!isComplete(found)) {
    const names = filesOf(definition).map(({ name }) => name)
    throw new UsageError(
      `${definition.name}: the folder ${folder} lacks a file: ${firstProblem(found)}; expected ${names.join(', ')}, each with or without .gz`,
    )
  }
  const notes: string[] = []
  const different = found.filter(({ state }) => state === 'different').map(({ file }) => basename(file))
  if (different.length > 0) notes.push(`not the published checksum: ${different.join(', ')}`)
  const data = assemble(definition, found, label)
  for (const split of ['train', 'test'] as const) {
    if (data[split].count !== definition[split])
      notes.push(`${data[split].count} ${split} images where the published set has ${definition[split]}`)
  }
  return notes.length === 0 ? data : { ...data, source: `${label} (note: ${notes.join('; ')})`, notes }
}

function filesOf({ files }: IdxDefinition): readonly IdxFile[] {
  return [files.trainImages, files.trainLabels, files.testImages, files.testLabels]
}

/** Each file of a folder, or why it cannot be used: only the published content counts. */
async function readPublished(definition: IdxDefinition, folder: string): Promise<Found[]> {
  return await Promise.all(
    filesOf(definition).map(async file => {
      try {
        const found = await readIdxFile(folder, file)
        if (typeof found === 'string' || found.state === 'published') return found
        return `${file.name}: wrong checksum`
      } catch (error) {
        // Its content may be sound: fetching another copy over it would lose it, and hide what is wrong.
        if (error instanceof UnreadableFile) throw error
        return `${file.name}: ${reasonOf(error)}`
      }
    }),
  )
}

function isComplete(found: readonly Found[]): found is IdxContent[] {
  return found.every(item => typeof item !== 'string')
}

function firstProblem(found: readonly Found[]): string {
  return found.find(item => typeof item === 'string') ?? ''
}

type Fetch = (
  definition: IdxDefinition,
  cache: string,
  cached: readonly Found[],
  options: LoadOptions,
  /** Receives what was tried and why it failed. */
  tried: string[],
) => Promise<{
  found: readonly Found[]
  origin: string
  /** Why the cache did not take what was found. */
  notCached?: string | undefined
}>

const fetchFromPublisher: Fetch = async (definition, cache, cached, options, tried) => {
  const wanted = filesOf(definition).flatMap((file, i) =>
    typeof cached[i] === 'string' ? [{ file, i }] : [],
  )
  const { contents, used, failures, notCached } = await fetchFromMirrors(
    wanted.map(({ file }) => publishedFile(file)),
    options.mirrors ?? definition.mirrors,
    cache,
    options,
  )
  tried.push(...failures)
  const found = [...cached]
  for (const [k, { i }] of wanted.entries()) found[i] = contents[k] ?? found[i]!
  return { found, origin: used.join(' and '), notCached }
}

function publishedFile(file: IdxFile): PublishedFile<IdxContent> {
  return {
    name: `${file.name}.gz`,
    async read(path) {
      const content = await readStoredFile(path, file, true).catch(unlessUnreadable)
      return content?.state === 'published' ? content : undefined
    },
  }
}

/** A damaged file is not the published one. */
function unlessUnreadable(error: unknown): undefined {
  if (error instanceof UnreadableFile || !(error instanceof FoveaError)) throw error
}

const fetchFromApt: Fetch = async (definition, cache, cached, options, tried) => {
  const { debian } = definition
  if (debian === undefined || options.apt === false) return { found: cached, origin: '' }
  const origin = `Debian's package ${debian.package} by apt-get`
  try {
    return await withAptPackage(
      debian.package,
      async root => {
        const folder = join(root, debian.folder)
        const unpacked = await readPublished(definition, folder)
        if (!isComplete(unpacked)) throw new FoveaError(`the package: ${firstProblem(unpacked)}`)
        const notCached = await copyInto(cache, unpacked).then(() => undefined, reasonOf)
        return { found: unpacked, origin, notCached }
      },
      event => options.progress?.({ phase: 'apt', ...event }),
    )
  } catch (error) {
    tried.push(`apt-get download ${debian.package} (${reasonOf(error)})`)
    return { found: cached, origin }
  }
}

async function copyInto(cache: string, contents: readonly IdxContent[]): Promise<void> {
  for (const { file } of contents)
    await withPartial(cache, basename(file), partial => copyFile(file, partial))
}

function assemble(definition: IdxDefinition, found: readonly IdxContent[], source: string): DataSet {
  const { name, title, imageShape, classes } = definition
  const [trainImages, trainLabels, testImages, testLabels] = found as [
    IdxContent,
    IdxContent,
    IdxContent,
    IdxContent,
  ]
  const train = parseLabelledImages(trainImages, trainLabels, classes.length)
  const test = parseLabelledImages(testImages, testLabels, classes.length)
  for (const [{ images }, { file }] of [
    [train, trainImages],
    [test, testImages],
  ] as const) {
    if (!sameShape(images.shape.slice(1), imageShape))
      throw new FoveaError(
        `${file}: expected images ${showShape(imageShape)} (height, width, channels), received ${showShape(images.shape.slice(1))}`,
      )
  }
  return { name, title, imageShape, classes, train, test, hash: hashContent(train, test), source }
}

function advice({ name, files, debian }: IdxDefinition): string {
  const names = Object.values(files).map(file => file.name)
  const install = debian === undefined ? '' : `, install Debian's package ${debian.package}`
  return `Connect to the network${install}, or name a folder that holds ${names.join(', ')} of ${name}`
}
