/**
 * CIFAR's batch files. Binary: for each image its labels, one byte each, then its pixels. Python: a pickled
 * dictionary of lists of labels and an array of pixels. Pixels are three planes (red, green, blue), each row
 * after row.
 */
import { FoveaError } from '../util/errors.ts'
import { showShape } from '../util/host-tensor.ts'
import type { LabelledImages } from './data-set.ts'
import type { NamedBytes } from './idx.ts'
import { type Pickled, PickledArray, pickledText, readPickle } from './pickle.ts'

/** How the binary files of a data set are laid out. */
export interface BinaryLayout {
  readonly labelsPerImage: number
  /** Which of an image's labels is meant. */
  readonly label: number
}

/** Where the Python files of a data set keep what. */
export interface PythonLayout {
  /** The key of the labels, as `fine_labels`. */
  readonly labelsKey: string
  /** The key of the classes' names in the file of these, as `fine_label_names`. */
  readonly classNamesKey: string
}

/** The images and labels of one file, as they stand in it. */
interface Batch {
  readonly file: string
  readonly labels: readonly Pickled[] | Uint8Array
  readonly bytes: Uint8Array
  /** Where the first image's pixels begin, and how far apart images are. */
  readonly start: number
  readonly stride: number
}

/**
 * Joins the files of a split, `count` images in equal parts, as uint8 [count, height, width, 3].
 *
 * @throws FoveaError naming the file, where its size, its contents or a label is not as expected
 */
export function readBatches(
  files: readonly NamedBytes[],
  layout: BinaryLayout | PythonLayout,
  count: number,
  [height, width, channels]: readonly [number, number, number],
  classCount: number,
): LabelledImages {
  const plane = height * width
  const images = new Uint8Array(count * plane * channels)
  const labels = new Int32Array(count)
  const perFile = count / files.length
  for (const [f, source] of files.entries()) {
    const batch =
      'labelsKey' in layout
        ? pythonBatch(source, layout, perFile, plane * channels)
        : binaryBatch(source, layout, perFile, plane * channels)
    for (let i = 0; i < perFile; i++) {
      const at = f * perFile + i
      labels[at] = labelAt(batch, i, classCount)
      const from = batch.start + i * batch.stride
      for (let channel = 0; channel < channels; channel++)
        spread(batch.bytes, from + channel * plane, images, at * plane * channels + channel, plane, channels)
    }
  }
  return {
    count,
    images: { dtype: 'uint8', shape: [count, height, width, channels], data: images },
    labels: { dtype: 'int32', shape: [count], data: labels },
  }
}

/** Copies `count` bytes to places that are `distance` apart. By itself, since V8 compiles so small a function at once. */
function spread(
  from: Uint8Array,
  start: number,
  to: Uint8Array,
  at: number,
  count: number,
  distance: number,
): void {
  for (let i = 0, place = at; i < count; i++, place += distance) to[place] = from[start + i]!
}

/** The classes' names that a data set's files state, one a line or pickled. */
export function readClassNames({ file, bytes }: NamedBytes, layout: BinaryLayout | PythonLayout): string[] {
  if (!('labelsKey' in layout))
    return new TextDecoder()
      .decode(bytes)
      .split('\n')
      .map(line => line.trim())
      .filter(line => line !== '')
  const names = dictionary({ file, bytes }).get(layout.classNamesKey)
  if (!Array.isArray(names)) throw new FoveaError(`${file}: expected a list ${layout.classNamesKey}`)
  return names.map(name => pickledText(name) ?? 'something that is no text')
}

function binaryBatch(
  { file, bytes }: NamedBytes,
  layout: BinaryLayout,
  count: number,
  pixels: number,
): Batch {
  const { labelsPerImage, label } = layout
  const stride = labelsPerImage + pixels
  if (bytes.length !== count * stride) {
    const what = bytes.length < count * stride ? 'truncated' : 'trailing bytes'
    throw new FoveaError(
      `${file}: ${what}: expected ${count * stride} bytes (${count} images of ${labelsPerImage} + ${pixels}), received ${bytes.length}`,
    )
  }
  const labels = Uint8Array.from({ length: count }, (_, i) => bytes[i * stride + label]!)
  return { file, labels, bytes, start: labelsPerImage, stride }
}

function pythonBatch(source: NamedBytes, layout: PythonLayout, count: number, pixels: number): Batch {
  const { file } = source
  const batch = dictionary(source)
  const [labels, data] = [batch.get(layout.labelsKey), batch.get('data')]
  if (!Array.isArray(labels) || !(data instanceof PickledArray))
    throw new FoveaError(
      `${file}: expected a list ${layout.labelsKey} and an array data, received the keys ${[...batch.keys()].join(', ')}`,
    )
  if (data.shape.length !== 2 || data.shape[0] !== count || data.shape[1] !== pixels)
    throw new FoveaError(
      `${file}: expected pixels ${showShape([count, pixels])}, received ${showShape(data.shape)}`,
    )
  if (labels.length !== count)
    throw new FoveaError(`${file}: expected ${count} labels, received ${labels.length}`)
  return { file, labels, bytes: data.data, start: 0, stride: pixels }
}

function dictionary(source: NamedBytes): Map<string, Pickled> {
  const value = readPickle(source)
  if (value instanceof Map) return value
  throw new FoveaError(`${source.file}: expected a pickled dictionary, received another value`)
}

function labelAt({ file, labels }: Batch, position: number, classCount: number): number {
  const label = labels[position]
  if (typeof label === 'number' && Number.isInteger(label) && label >= 0 && label < classCount) return label
  const received = typeof label === 'number' ? label : 'no number'
  throw new FoveaError(
    `${file}: label ${received} at position ${position} is no class: expected 0 .. ${classCount - 1}`,
  )
}
