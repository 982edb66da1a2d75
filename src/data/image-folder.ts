/** A folder of pictures as a data set: `train/CLASS/*.png` and `test/CLASS/*.png`, or .jpg, .jpeg, .webp. */
import { readdir } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import sharp from 'sharp'
import { FoveaError, UsageError } from '../util/errors.ts'
import { hashContent } from './content-hash.ts'
import type { DataSet, LabelledImages } from './data-set.ts'

type ImageShape = readonly [height: number, width: number, channels: number]

const PREFIX = 'folder:'
const DEFAULT_SHAPE: ImageShape = [32, 32, 3]
/** Pictures that are decoded at a time: sharp has as many threads of its own as there are cores. */
const AT_A_TIME = 16

/** Whether a data set's name means a folder of pictures. */
export function isImageFolder(name: string): boolean {
  return name.startsWith(PREFIX)
}

/**
 * Loads `folder:PATH` (32 x 32 pixels, colour) or `folder:HEIGHTxWIDTHxCHANNELS:PATH` (channels: 1 is grey, 3 is RGB). The
 * classes are the folders' names, by their code units. A picture is turned as its EXIF says, laid on white where it is
 * transparent, and fitted into the shape with its proportions kept; the rest is black.
 *
 * @throws UsageError for a wrong name, fewer than two classes, classes that differ between the splits, or a class without
 *   pictures; FoveaError naming a picture that cannot be decoded
 */
export async function loadImageFolder(name: string): Promise<DataSet> {
  const match = /^folder:(?:(\d+)x(\d+)x(\d+):)?(.+)$/s.exec(name)
  const [rows, columns, planes] = match?.slice(1, 4) ?? []
  const imageShape: ImageShape =
    rows === undefined ? DEFAULT_SHAPE : [Number(rows), Number(columns), Number(planes)]
  const [height, width, channels] = imageShape
  if (match === null || height < 1 || width < 1 || (channels !== 1 && channels !== 3))
    throw new UsageError(
      `data set: expected folder:PATH or folder:HEIGHTxWIDTHxCHANNELS:PATH with 1 or 3 channels, received "${name}"`,
    )
  const root = resolve(match[4]!)
  const classes = await subfolders(join(root, 'train'))
  if (classes.length < 2)
    throw new UsageError(
      `${join(root, 'train')}: expected at least 2 folders, one a class, received ${classes.length}`,
    )
  const inTest = await subfolders(join(root, 'test'))
  if (inTest.join('/') !== classes.join('/'))
    throw new UsageError(
      `${join(root, 'test')}: expected the classes of train (${classes.join(', ')}), received ${inTest.join(', ') || 'none'}`,
    )
  const train = await readSplit(join(root, 'train'), classes, imageShape)
  const test = await readSplit(join(root, 'test'), classes, imageShape)
  return {
    name: `${PREFIX}${imageShape.join('x')}:${root}`,
    title: basename(root),
    imageShape,
    classes,
    train,
    test,
    hash: hashContent(train, test),
    source: `the folder ${root}`,
  }
}

async function readSplit(
  folder: string,
  classes: readonly string[],
  [height, width, channels]: ImageShape,
): Promise<LabelledImages> {
  const pictures: { path: string; label: number }[] = []
  for (const [label, name] of classes.entries()) {
    const entries = await entriesOf(join(folder, name))
    const files = entries.filter(
      entry => !entry.isDirectory() && isVisible(entry.name) && /\.(png|jpe?g|webp)$/i.test(entry.name),
    )
    if (files.length === 0)
      throw new UsageError(`${join(folder, name)}: expected png, jpg or webp files, received none`)
    const names = files.map(file => file.name).sort()
    pictures.push(...names.map(file => ({ path: join(folder, name, file), label })))
  }
  const count = pictures.length
  const size = height * width * channels
  const images = new Uint8Array(count * size)
  for (let from = 0; from < count; from += AT_A_TIME) {
    const some = pictures.slice(from, from + AT_A_TIME)
    const decoded = await Promise.all(some.map(({ path }) => decode(path, [height, width, channels])))
    for (const [i, pixels] of decoded.entries()) images.set(pixels, (from + i) * size)
  }
  return {
    count,
    images: { dtype: 'uint8', shape: [count, height, width, channels], data: images },
    labels: { dtype: 'int32', shape: [count], data: Int32Array.from(pictures, ({ label }) => label) },
  }
}

async function decode(path: string, [height, width, channels]: ImageShape): Promise<Uint8Array> {
  try {
    return await sharp(path)
      .autoOrient()
      .flatten({ background: 'white' })
      .resize(width, height, { fit: 'contain', background: 'black' })
      .toColourspace(channels === 1 ? 'b-w' : 'srgb')
      .raw({ depth: 'uchar' })
      .toBuffer()
  } catch (error) {
    const reason = (error as Error).message.split('\n', 1)[0]!
    throw new FoveaError(`${path}: not an image that can be read (${reason})`)
  }
}

/** Hidden files stand beside pictures on some systems. */
const isVisible = (name: string) => !name.startsWith('.')

async function subfolders(folder: string): Promise<string[]> {
  const entries = await entriesOf(folder)
  // A class that is a link would be left out without a word, and the labels after it shifted.
  const link = entries.find(entry => entry.isSymbolicLink() && isVisible(entry.name))
  if (link) throw new UsageError(`${join(folder, link.name)}: expected a folder, received a link`)
  return entries
    .filter(entry => entry.isDirectory() && isVisible(entry.name))
    .map(({ name }) => name)
    .sort()
}

async function entriesOf(folder: string) {
  return await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const reason = error.code === 'ENOENT' ? 'no such folder' : `cannot be read (${error.code})`
    throw new UsageError(`${folder}: ${reason}`)
  })
}
