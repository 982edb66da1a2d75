/**
 * Weights that were trained on ImageNet, as Keras publishes them: keras/src/applications names the files and
 * their sums.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { defaultCacheDir } from '../data/cache.ts'
import type { LoadOptions } from '../data/data-set.ts'
import { fetchFromMirrors } from '../data/mirrors.ts'
import { FoveaError, UsageError } from '../util/errors.ts'

/** What a publisher offers for one architecture. */
export interface PublishedWeights {
  /** The address of the folder. */
  readonly base: string
  /** The start of both files' names. */
  readonly stem: string
  /** MD5 sums of the file with the head for 1000 classes, and of that without. */
  readonly md5: { readonly top: string; readonly notop: string }
}

const KERAS = 'https://storage.googleapis.com/tensorflow/keras-applications/'

const published: Readonly<Record<string, PublishedWeights>> = {
  vgg16: {
    base: `${KERAS}vgg16/`,
    stem: 'vgg16_weights_tf_dim_ordering_tf_kernels',
    md5: { top: '64373286793e3c8b2b4e3219cbf3544b', notop: '6d6bbae143d832006294945121d1f1fc' },
  },
  resnet50: {
    base: `${KERAS}resnet/`,
    stem: 'resnet50_weights_tf_dim_ordering_tf_kernels',
    md5: { top: '2cb95161c43110f7111970584f804107', notop: '4d473c1dd8becc155b73f8504c6f6626' },
  },
  xception: {
    base: `${KERAS}xception/`,
    stem: 'xception_weights_tf_dim_ordering_tf_kernels',
    md5: { top: '0a58e3b7378bc2990ea3b43d5981f1f6', notop: 'b0042744bf5b25fce3cb969f33bebb97' },
  },
}

export interface ImageNetOptions
  extends Pick<LoadOptions, 'cacheDir' | 'progress' | 'mirrors' | 'connectTimeout' | 'idleTimeout'> {
  /** With the head for ImageNet's 1000 classes. Default: false, the backbone alone. */
  readonly top?: boolean
}

/**
 * The path of an architecture's published weights: from the cache's folder `weights`, where they are as
 * published, or fetched into it.
 *
 * @throws UsageError where none are published for the architecture; FoveaError, telling what to fetch by
 *   hand, where they
 *   cannot be fetched
 */
export async function fetchImageNetWeights(
  architecture: string,
  options: ImageNetOptions = {},
): Promise<string> {
  if (!Object.hasOwn(published, architecture))
    throw new UsageError(
      `${architecture}: no weights trained on ImageNet are published for it, only for ${Object.keys(published).join(', ')}`,
    )
  return await fetchPublished(architecture, published[architecture]!, options)
}

/**
 * Whether a file is one that is published for an architecture, wherever it lies: fetched by hand, or copied.
 */
export async function isPublished(architecture: string, path: string): Promise<boolean> {
  if (!Object.hasOwn(published, architecture)) return false
  return Object.values(published[architecture]!.md5).includes((await md5Of(path)) ?? '')
}

/** As {@link fetchImageNetWeights}, for any publisher. */
export async function fetchPublished(
  architecture: string,
  { base, stem, md5 }: PublishedWeights,
  options: ImageNetOptions,
): Promise<string> {
  const name = options.top ? `${stem}.h5` : `${stem}_notop.h5`
  const sum = options.top ? md5.top : md5.notop
  const folder = join(options.cacheDir ?? defaultCacheDir(), 'weights')
  const path = join(folder, name)
  if ((await md5Of(path)) === sum) return path
  const file = { name, read: async (copy: string) => ((await md5Of(copy)) === sum ? true : undefined) }
  const { contents, failures, notCached } = await fetchFromMirrors(
    [file],
    options.mirrors ?? [base],
    folder,
    options,
  )
  if (contents[0] && notCached === undefined) return path
  throw new FoveaError(
    `${architecture}: its weights trained on ImageNet could not be fetched: ${notCached ?? failures.join('; ')}. Fetch ${base}${name} (MD5 ${sum}) by hand, and give it with --weights FILE`,
  )
}

/** Undefined where there is no such file. */
async function md5Of(path: string): Promise<string | undefined> {
  const hash = createHash('md5')
  try {
    await pipeline(createReadStream(path), hash)
    return hash.digest('hex')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new FoveaError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}
