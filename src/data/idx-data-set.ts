/** Loads a data set that is published as four IDX files, from the first place that has it whole. */
import { copyFile, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { FoveaError, UsageError } from '../util/errors.ts'
import { sameShape, showShape } from '../util/host-tensor.ts'
import { withAptPackage } from './apt.ts'
import { defaultCacheDir, withPartial } from './cache.ts'
import { hashContent } from './content-hash.ts'
import type { DataSet, DataSetDescription, LoadOptions } from './data-set.ts'
import { download, probe, reasonOf } from './download.ts'
import { parseLabelledImages } from './idx.ts'
import { type IdxContent, type IdxFile, readIdxFile, readStoredFile } from './idx-file.ts'

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

const CONNECT_TIMEOUT = 4_000
const IDLE_TIMEOUT = 10_000

/**
 * Loads from, in this order: the folder that the user names (alone, then); Fovea's cache; Debian's package if
 * it is installed; the publisher's addresses; Debian's package by apt-get. What is downloaded is checked and
 * kept in the cache.
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
  for (const fetchInto of [fetchFromMirrors, fetchFromApt]) {
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
  return notes.length === 0 ? data : { ...data, source: `${label} (note: ${notes.join('; ')})` }
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

const fetchFromMirrors: Fetch = async (definition, cache, cached, options, tried) => {
  const found = [...cached]
  const files = filesOf(definition)
  const bases = options.mirrors ?? definition.mirrors
  const over = new AbortController()
  // All are asked at once, so that a machine without a network waits for one timeout, not for one a mirror.
  const wanted = files[cached.findIndex(item => typeof item === 'string')]!
  const mirrors = bases.map(base => ({
    base,
    reason: probe(`${base}${wanted.name}.gz`, options.connectTimeout ?? CONNECT_TIMEOUT, over.signal),
    used: false,
  }))
  const reasons = new Map<string, string>()
  let notCached: string | undefined
  try {
    for (const [i, file] of files.entries()) {
      if (typeof found[i] !== 'string') continue
      for (const mirror of mirrors) {
        if (reasons.has(mirror.base)) continue
        try {
          const silent = await mirror.reason
          if (silent !== undefined) throw new FoveaError(silent)
          const fetched = await fetchFile(`${mirror.base}${file.name}.gz`, file, cache, options)
          found[i] = fetched.content
          notCached ??= fetched.notCached
          mirror.used = true
          break
        } catch (error) {
          reasons.set(mirror.base, reasonOf(error))
        }
      }
      if (typeof found[i] === 'string') break
    }
  } finally {
    over.abort()
  }
  for (const [base, reason] of reasons) tried.push(`${base} (${reason})`)
  const used = mirrors.filter(mirror => mirror.used).map(mirror => mirror.base)
  return { found, origin: used.join(' and '), notCached }
}

/** Downloads one file into the cache. A wrong checksum after a resumed download gets one fresh try. */
async function fetchFile(
  url: string,
  file: IdxFile,
  cache: string,
  options: LoadOptions,
): Promise<{ content: IdxContent; notCached?: string }> {
  const name = `${file.name}.gz`
  const progress = (received: number, total: number | undefined) =>
    options.progress?.({ phase: 'download', file: name, received, total, url })
  let content: IdxContent | undefined
  const fill = async (partial: string): Promise<void> => {
    for (;;) {
      const start = await stat(partial).then(
        ({ size }) => size,
        () => 0,
      )
      await download(url, partial, { idleTimeout: options.idleTimeout ?? IDLE_TIMEOUT, progress })
      content = await readStoredFile(partial, file, true).catch(() => undefined)
      if (content?.state === 'published') return
      await rm(partial, { force: true })
      if (start === 0) throw new FoveaError(`${name}: wrong checksum`)
    }
  }
  try {
    await withPartial(cache, name, fill)
    return { content: content! }
  } catch (error) {
    if (content?.state !== 'published') throw error
    return { content, notCached: reasonOf(error) }
  }
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
