/** A tiny data set of CIFAR's kind in every published form, made from code. */
import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { cifar100 } from '../src/data/cifar.ts'
import type { CifarDefinition } from '../src/data/cifar-data-set.ts'
import { key, randomBits } from '../src/util/random.ts'

export const pixelsPerImage = 3072

/** Planes of random pixels, so that archives do not compress and can be cut in the middle. */
export const planes = Uint8Array.from(randomBits(key(0, 'cifar'), 6 * pixelsPerImage), bits => bits & 255)
export const fineLabels = [3, 99, 0, 7, 42, 1]
export const coarseLabels = [1, 19, 0, 2, 5, 3]
export const trainCount = 4

const binary = (from: number, to: number) =>
  Buffer.concat(
    Array.from({ length: to - from }, (_, i) => [
      Uint8Array.of(coarseLabels[from + i]!, fineLabels[from + i]!),
      planes.subarray((from + i) * pixelsPerImage, (from + i + 1) * pixelsPerImage),
    ]).flat(),
  )

const text = (value: string) => Buffer.from(value, 'latin1')

/** A short byte string of Python 2. */
export const str = (value: string) => Buffer.concat([text('U'), Uint8Array.of(value.length), text(value)])

const list = (items: readonly Uint8Array[]) => Buffer.concat([text('](' /* [] MARK */), ...items, text('e')])
const int = (value: number) => Uint8Array.of(0x4b, value)

function dictionary(entries: readonly (readonly [string, Uint8Array])[]): Buffer {
  const items = entries.flatMap(([name, value]) => [str(name), value])
  return Buffer.concat([Uint8Array.of(0x80, 2), text('}q\x01('), ...items, text('u.')])
}

/** As NumPy pickles a uint8 array [rows, 3072] for protocol 2. */
function array(rows: number, bytes: Uint8Array, byColumns = false): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  const columns = text('M\x00\x0c')
  return Buffer.concat([
    text('cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87R'),
    text(`(K\x01K${String.fromCharCode(rows)}`),
    columns,
    text('\x86cnumpy\ndtype\nq\x0cU\x02u1K\x00K\x01\x87R'),
    text('(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'),
    Uint8Array.of(byColumns ? 0x88 : 0x89),
    text('T'),
    length,
    bytes,
    text('tb'),
  ])
}

export function pythonBatch(from: number, to: number, { fine = fineLabels, byColumns = false } = {}): Buffer {
  const rows = planes.subarray(from * pixelsPerImage, to * pixelsPerImage)
  const count = to - from
  const columns = rows.map((_, i) => rows[(i % count) * pixelsPerImage + Math.floor(i / count)]!)
  return dictionary([
    ['batch_label', str('tiny')],
    ['fine_labels', list(fine.slice(from, to).map(int))],
    ['coarse_labels', list(coarseLabels.slice(from, to).map(int))],
    ['data', array(count, byColumns ? columns : rows, byColumns)],
  ])
}

const header = (path: string, size: number, type: string) => {
  const record = Buffer.alloc(512)
  record.write(path, 0, 'latin1')
  record.write(size.toString(8).padStart(11, '0'), 124)
  record.write('        ', 148)
  record.write(type, 156)
  record.write('ustar\x0000', 257, 'latin1')
  const sum = record.reduce((a, b) => a + b, 0)
  record.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return record
}

/** A tar archive; a path that ends with a slash is a folder. */
export function tar(files: readonly (readonly [path: string, bytes: Uint8Array, type?: string])[]): Buffer {
  const records = files.flatMap(([path, bytes, type]) => [
    header(path, bytes.length, type ?? (path.endsWith('/') ? '5' : '0')),
    bytes,
    Buffer.alloc((512 - (bytes.length % 512)) % 512),
  ])
  return Buffer.concat([...records, Buffer.alloc(1024)])
}

/** The files of both forms, by the folder and the name that the authors give them. */
export const forms: Record<string, Record<string, Uint8Array>> = {
  'cifar-100-binary': {
    'train.bin': binary(0, trainCount),
    'test.bin': binary(trainCount, 6),
    'fine_label_names.txt': text(`${cifar100.classes.join('\n')}\n\n`),
  },
  'cifar-100-python': {
    train: pythonBatch(0, trainCount),
    test: pythonBatch(trainCount, 6, { byColumns: true }),
    meta: dictionary([['fine_label_names', list(cifar100.classes.map(str))]]),
  },
}

const archive = (folder: string) =>
  gzipSync(
    tar([
      [`${folder}/`, new Uint8Array(0)],
      ...Object.entries(forms[folder]!).map(([name, bytes]) => [`${folder}/${name}`, bytes] as const),
    ]),
  )

export const archives: Record<string, Uint8Array> = {
  'cifar-100-binary.tar.gz': archive('cifar-100-binary'),
  'cifar-100-python.tar.gz': archive('cifar-100-python'),
}

const withOwnSum = <F extends CifarDefinition['binary' | 'python']>(form: F): F => {
  const { name } = form.archive
  const md5 = createHash('md5').update(archives[name]!).digest('hex')
  return { ...form, archive: { name, md5 } }
}

export const tinyCifar: CifarDefinition = {
  ...cifar100,
  train: trainCount,
  test: 2,
  binary: withOwnSum(cifar100.binary),
  python: withOwnSum(cifar100.python),
}
