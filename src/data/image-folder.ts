/** A folder of pictures as a data set: `train/CLASS/*.png` and `test/CLASS/*.png`, or .jpg, .jpeg, .webp. */
import { readdir } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { UsageError } from '../util/errors.ts'
import { sizeOf } from '../util/host-tensor.ts'
import { hashContent } from './content-hash.ts'
import type { DataSet, LabelledImages, LoadOptions, SkippedFile } from './data-set.ts'
import { type ImageShape, isPicture, readPicture, UndecodablePicture } from './picture.ts'
import { checkFolder } from './stored-file.ts'

const PREFIX = 'folder:'
const DEFAULT_SHAPE: ImageShape = [32, 32, 3]
/** Pixels a side; no classifier here is trained on more. */
const MOST_PIXELS = 1024
const LAYOUT = 'expected train/CLASS/PICTURE and test/CLASS/PICTURE in the folder of a data set'
/** Pictures that are decoded at a time: sharp has as many threads of its own as there are cores. */
const AT_A_TIME = 16

/** Whether a data set's name means a folder of pictures. */
export function isImageFolder(name: string): boolean {
  return name.startsWith(PREFIX)
}

/**
 * Loads `folder:PATH` (32 x 32 pixels, colour) or `folder:HEIGHTxWIDTHxCHANNELS:PATH` (channels: 1 is grey, 3
 * is RGB). The classes are the folders' names, by their code units. A picture is turned as its EXIF says,
 * laid on white where it is transparent, and fitted into the shape with its proportions kept; the rest is
 * black. What a file holds must be what its ending says.
 *
 * @param options with `skipUndecodable`, a picture that cannot be decoded is left out and listed in `skipped`
 * @throws UsageError for a wrong name, sides above 1,024 pixels, fewer than two classes, classes that differ
 *   between the splits, a class without pictures, or more pixels than there is memory for; FoveaError naming
 *   a picture that cannot be decoded
 */
export async function loadImageFolder(
  name: string,
  options: Pick<LoadOptions, 'skipUndecodable'> = {},
): Promise<DataSet> {
  const match = /^folder:(?:(\d+)x(\d+)x(\d+):)?(.+)$/s.exec(name)
  const [rows, columns, planes] = match?.slice(1, 4) ?? []
  const imageShape: ImageShape =
    rows === undefined ? DEFAULT_SHAPE : [Number(rows), Number(columns), Number(planes)]
  const [height, width, channels] = imageShape
  const isOtherShape = rows === undefined && /^[\dx]+:/.test(match?.[4] ?? '')
  if (match === null || isOtherShape || height < 1 || width < 1 || (channels !== 1 && channels !== 3))
    throw new UsageError(
      `data set: expected folder:PATH or folder:HEIGHTxWIDTHxCHANNELS:PATH with 1 or 3 channels, received "${name}"`,
    )
  if (height > MOST_PIXELS || width > MOST_PIXELS)
    throw new UsageError(
      `data set: expected images of at most ${MOST_PIXELS} x ${MOST_PIXELS} pixels, received ${height} x ${width} from "${name}"`,
    )
  const root = resolve(match[4]!)
  await checkFolder('data set', root)
  const classes = await classesOf(root, 'train')
  if (classes.length < 2)
    throw new UsageError(
      `${join(root, 'train')}: expected at least 2 folders, one a class, received ${classes.length}`,
    )
  const inTest = await classesOf(root, 'test')
  if (inTest.join('/') !== classes.join('/'))
    throw new UsageError(
      `${join(root, 'test')}: expected the classes of train (${classes.join(', ')}), received ${inTest.join(', ') || 'none'}`,
    )
  const pictures = {
    train: await picturesOf(join(root, 'train'), classes),
    test: await picturesOf(join(root, 'test'), classes),
  }
  checkMemory(name, pictures.train.length + pictures.test.length, imageShape)
  const skipped: SkippedFile[] | undefined = options.skipUndecodable ? [] : undefined
  const split = async (which: 'train' | 'test') =>
    await readSplit(join(root, which), classes, pictures[which], imageShape, skipped)
  const [train, test] = [await split('train'), await split('test')]
  const note = skipped?.length ? ` (note: undecodable pictures skipped: ${skipped.length})` : ''
  return {
    name: `${PREFIX}${imageShape.join('x')}:${root}`,
    title: basename(root),
    imageShape,
    classes,
    train,
    test,
    hash: hashContent(train, test),
    source: `the folder ${root}${note}`,
    ...(skipped?.length ? { skipped } : {}),
  }
}

/** A picture of a split, and its class. */
interface Labelled {
  readonly path: string
  readonly label: number
}

async function picturesOf(folder: string, classes: readonly string[]): Promise<Labelled[]> {
  const pictures: Labelled[] = []
  for (const [label, name] of classes.entries()) {
    const entries = await entriesOf(join(folder, name))
    const files = entries.filter(
      entry => (entry.isFile() || entry.isSymbolicLink()) && isVisible(entry.name) && isPicture(entry.name),
    )
    if (files.length === 0)
      throw new UsageError(`${join(folder, name)}: expected png, jpg or webp files, received none`)
    const names = files.map(file => file.name).sort()
    pictures.push(...names.map(file => ({ path: join(folder, name, file), label })))
  }
  return pictures
}

/**
 * Refuses what would not fit, before hours of decoding. While training, the pixels stand here and in the
 * engine.
 */
function checkMemory(name: string, count: number, shape: ImageShape): void {
  const needed = 2 * count * sizeOf(shape)
  const available = process.availableMemory()
  if (needed <= available) return
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`
  throw new UsageError(
    `data set ${name}: ${count} pictures of ${shape.join(' x ')} need ${gigabytes(needed)} of memory to train on, expected at most the ${gigabytes(available)} that are free; ask for smaller ones, as folder:32x32x3:PATH`,
  )
}

async function readSplit(
  folder: string,
  classes: readonly string[],
  pictures: readonly Labelled[],
  shape: ImageShape,
  skipped: SkippedFile[] | undefined,
): Promise<LabelledImages> {
  const size = sizeOf(shape)
  const images = new Uint8Array(pictures.length * size)
  const labels = new Int32Array(pictures.length)
  const decode = async ({ path }: Labelled) => await readPicture(path, shape)
  let count = 0
  for (let from = 0; from < pictures.length; from += AT_A_TIME) {
    const some = pictures.slice(from, from + AT_A_TIME)
    const decoded = await Promise.allSettled(some.map(decode))
    for (const [i, result] of decoded.entries()) {
      const picture = some[i]!
      // The decoders write what is wrong into one text for all threads: only alone is it surely this picture's.
      const pixels =
        result.status === 'fulfilled' ? result.value : await decode(picture).catch(unlessSkipped(skipped))
      if (pixels instanceof UndecodablePicture) {
        skipped!.push({ file: pixels.path, reason: pixels.reason })
        continue
      }
      images.set(pixels, count * size)
      labels[count++] = picture.label
    }
  }
  const kept = new Set(labels.subarray(0, count))
  const empty = classes.findIndex((_, label) => !kept.has(label))
  if (empty >= 0)
    throw new UsageError(
      `${join(folder, classes[empty]!)}: expected a picture that can be read, received none`,
    )
  // A copy of some, but not of all: two of them may not fit.
  const data = count === pictures.length ? images : images.slice(0, count * size)
  return {
    count,
    images: { dtype: 'uint8', shape: [count, ...shape], data },
    labels: { dtype: 'int32', shape: [count], data: labels.slice(0, count) },
  }
}

function unlessSkipped(skipped: SkippedFile[] | undefined): (error: unknown) => UndecodablePicture {
  return error => {
    if (skipped !== undefined && error instanceof UndecodablePicture) return error
    throw error
  }
}

/** Hidden files stand beside pictures on some systems. */
const isVisible = (name: string) => !name.startsWith('.')

async function classesOf(root: string, split: 'train' | 'test'): Promise<string[]> {
  const folder = join(root, split)
  const entries = await entriesOf(folder)
  // A class that is a link would be left out without a word, and the labels after it shifted.
  const link = entries.find(entry => entry.isSymbolicLink() && isVisible(entry.name))
  if (link) throw new UsageError(`${join(folder, link.name)}: expected a folder, received a link`)
  const names = entries.filter(entry => entry.isDirectory() && isVisible(entry.name)).map(({ name }) => name)
  return names.sort()
}

async function entriesOf(folder: string) {
  return await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const reason = error.code === 'ENOENT' ? `no such folder; ${LAYOUT}` : `cannot be read (${error.code})`
    throw new UsageError(`${folder}: ${reason}`)
  })
}
