/**
 * Makes assets/fashion-mnist-subset/ from the whole of Fashion-MNIST: 200 training and 50 test images a
 * class, drawn with seed 0 and kept in their original order. The same input gives the same images.
 *
 *   node scripts/make-subset.ts [FOLDER WITH THE FOUR FILES]
 */
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import type { LabelledImages } from '../src/data/data-set.ts'
import { fashionMnistSubset, loadFashionMnist } from '../src/data/fashion-mnist.ts'
import { encodeIdx } from '../src/data/idx.ts'
import { splitTraining } from '../src/data/split.ts'
import { sizeOf } from '../src/util/host-tensor.ts'

const folder = process.argv[2]
const whole = await loadFashionMnist(folder === undefined ? {} : { folder })
const { train, test, files } = fashionMnistSubset
await writePart(whole.train, train, files.trainImages.name, files.trainLabels.name)
await writePart(whole.test, test, files.testImages.name, files.testLabels.name)

async function writePart(part: LabelledImages, count: number, imagesName: string, labelsName: string) {
  const { train: indices } = splitTraining(part.labels, whole.classes.length, {
    fraction: count / part.count,
    validation: 0,
    seed: 0,
  })
  const imageSize = sizeOf(whole.imageShape)
  const images = new Uint8Array(count * imageSize)
  indices.forEach((index, i) => {
    images.set(
      (part.images.data as Uint8Array).subarray(index * imageSize, (index + 1) * imageSize),
      i * imageSize,
    )
  })
  const labels = Uint8Array.from(indices, index => Number(part.labels.data[index]))
  await write(imagesName, encodeIdx([count, ...whole.imageShape.slice(0, 2)], images))
  await write(labelsName, encodeIdx([count], labels))
}

async function write(name: string, bytes: Uint8Array) {
  const target = fileURLToPath(new URL(`../assets/fashion-mnist-subset/${name}.gz`, import.meta.url))
  await mkdir(dirname(target), { recursive: true })
  await writeFile(`${target}.tmp`, gzipSync(bytes, { level: 9 }), { flush: true })
  await rename(`${target}.tmp`, target)
}
