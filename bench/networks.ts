/** The networks that the bench trains, and the images on which. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { loadDataSet } from '../src/data/registry.ts'
import { multiplyAdds } from '../src/graph/cost.ts'
import { input } from '../src/graph/ops/source.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Model } from '../src/nn/model.ts'
import { bytesOf } from '../src/util/host-tensor.ts'
import type { BuildOptions } from '../src/zoo/architecture.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import type { Job } from './protocol.ts'
import { scratch } from './scratch.ts'

export type DataSetName = 'fashion-mnist' | 'cifar-10'

export interface Network {
  /** The zoo's name. */
  readonly name: string
  readonly dataSet: DataSetName
  /** Of the five reports; the others are standard backbones. */
  readonly report: boolean
  readonly options?: BuildOptions
}

const network = (dataSet: DataSetName, report: boolean, options?: BuildOptions) => (name: string) => ({
  name,
  dataSet,
  report,
  ...(options ? { options } : {}),
})

export const networks: readonly Network[] = [
  ...[
    'singh-brar/basic',
    'singh-brar/sparse',
    'singh-brar/lateral-inhibition',
    'korssjoen/dense',
    'korssjoen/cnn',
    'wang/cnn',
    'bassas/mlp-3',
    'bassas/cnn',
  ].map(network('fashion-mnist', true)),
  ...['visionnet/plain', 'visionnet/attention-2'].map(network('cifar-10', true)),
  ...['resnet20'].map(network('cifar-10', false)),
  // Its own dense layers are for maps of 7x7.
  ...['vgg16'].map(network('cifar-10', false, { top: 'pooling' })),
  ...['xception'].map(network('cifar-10', false)),
]

/** Images as raw files, for every peer to read, and what is taken from them. */
export interface Images extends Pick<Job, 'images' | 'labels' | 'shape' | 'classes'> {
  readonly hash: string
  readonly source: string
}

/** The training images of data sets as raw files in a temporary folder. */
export class ImageFiles {
  private readonly folders: Readonly<Record<DataSetName, string | undefined>>
  private readonly written = new Map<DataSetName, Promise<Images>>()

  /** @param folders where a data set is read from; undefined: where Fovea finds it itself */
  constructor(folders: Readonly<Record<DataSetName, string | undefined>>) {
    this.folders = folders
  }

  async of(name: DataSetName): Promise<Images> {
    const known = this.written.get(name)
    if (known) return await known
    const images = this.write(name)
    this.written.set(name, images)
    return await images
  }

  private async write(name: DataSetName): Promise<Images> {
    const folder = this.folders[name]
    const { train, imageShape, classes, hash, source } = await loadDataSet(
      name,
      folder === undefined ? {} : { folder },
    )
    const images = join(scratch(), `${name}.images`)
    const labels = join(scratch(), `${name}.labels`)
    await writeFile(images, bytesOf(train.images))
    await writeFile(labels, Uint8Array.from(train.labels.data as Int32Array))
    return { images, labels, shape: [train.count, ...imageShape], classes: classes.length, hash, source }
  }
}

/** Builds a network for its images. */
export function modelOf(
  { name, options }: Network,
  { shape, classes }: Pick<Images, 'shape' | 'classes'>,
): Model {
  const [, ...imageShape] = shape
  return architectureNamed(name).build(imageShape, classes, options)
}

/** Multiply-adds of one image forwards, by definition: whatever form a program computes them in. */
export function forwardMultiplyAdds(model: Model): number {
  const { logits } = buildModel(model, input('images', 'float32', [1, ...model.input]), { training: false })
  return multiplyAdds([logits])[0]!
}
