/**
 * Fashion-MNIST: 28 x 28 grey images of clothes, 10 classes of 6,000 for training and 1,000 for testing.
 * Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
 * algorithms", arXiv 1708.07747, 2017.
 */
import { fileURLToPath } from 'node:url'
import type { DataSet, LoadOptions } from './data-set.ts'
import { type IdxDefinition, loadIdxDataSet, loadIdxFolder } from './idx-data-set.ts'

const classes = [
  'T-shirt/top',
  'Trouser',
  'Pullover',
  'Dress',
  'Coat',
  'Sandal',
  'Shirt',
  'Sneaker',
  'Bag',
  'Ankle boot',
] as const

/** The SHA-256 sums are of the files that have the publisher's MD5 sums, decompressed. */
export const fashionMnist: IdxDefinition = {
  name: 'fashion-mnist',
  title: 'Fashion-MNIST',
  imageShape: [28, 28, 1],
  classes,
  train: 60_000,
  test: 10_000,
  source: 'Zalando Research, https://github.com/zalandoresearch/fashion-mnist',
  licence: 'MIT',
  files: {
    trainImages: {
      name: 'train-images-idx3-ubyte',
      sha256: 'c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888',
    },
    trainLabels: {
      name: 'train-labels-idx1-ubyte',
      sha256: 'bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9',
    },
    testImages: {
      name: 't10k-images-idx3-ubyte',
      sha256: '5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b',
    },
    testLabels: {
      name: 't10k-labels-idx1-ubyte',
      sha256: '0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34',
    },
  },
  mirrors: [
    'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
    'https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/',
    'https://storage.googleapis.com/tensorflow/tf-keras-datasets/',
  ],
  debian: { package: 'dataset-fashion-mnist', folder: '/usr/share/datasets/fashion-mnist' },
}

/** The part of Fashion-MNIST that Fovea ships: 200 training and 50 test images a class. */
export const fashionMnistSubset: IdxDefinition = {
  name: 'fashion-mnist-subset',
  title: 'Fashion-MNIST (subset)',
  imageShape: [28, 28, 1],
  classes,
  train: 2_000,
  test: 500,
  source: fashionMnist.source,
  licence: 'MIT',
  files: {
    trainImages: { name: 'train-images-idx3-ubyte' },
    trainLabels: { name: 'train-labels-idx1-ubyte' },
    testImages: { name: 't10k-images-idx3-ubyte' },
    testLabels: { name: 't10k-labels-idx1-ubyte' },
  },
  mirrors: [],
}

/** Loads Fashion-MNIST from the first place that has it; see docs/data.md for the order. */
export async function loadFashionMnist(options: LoadOptions = {}): Promise<DataSet> {
  return await loadIdxDataSet(fashionMnist, options)
}

/** Loads the subset that is shipped with Fovea; needs no network. */
export async function loadFashionMnistSubset(options: Pick<LoadOptions, 'folder'> = {}): Promise<DataSet> {
  if (options.folder !== undefined) return await loadIdxFolder(fashionMnistSubset, options.folder)
  const shipped = fileURLToPath(new URL('../../assets/fashion-mnist-subset/', import.meta.url))
  return await loadIdxFolder(fashionMnistSubset, shipped, 'shipped with Fovea')
}
