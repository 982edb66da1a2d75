/**
 * MNIST: 28 x 28 grey images of handwritten digits, 60,000 for training and 10,000 for testing. LeCun,
 * Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11),
 * 1998.
 */
import type { DataSet, LoadOptions } from './data-set.ts'
import { type IdxDefinition, loadIdxDataSet } from './idx-data-set.ts'

export const mnist: IdxDefinition = {
  name: 'mnist',
  title: 'MNIST',
  imageShape: [28, 28, 1],
  classes: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'],
  train: 60_000,
  test: 10_000,
  source: 'LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/',
  licence: 'CC BY-SA 3.0',
  files: {
    trainImages: { name: 'train-images-idx3-ubyte', md5: 'f68b3c2dcbeaaa9fbdd348bbdeb94873' },
    trainLabels: { name: 'train-labels-idx1-ubyte', md5: 'd53e105ee54ea40749a09fcbcd1e9432' },
    testImages: { name: 't10k-images-idx3-ubyte', md5: '9fb629c4189551a2d022fa330f9573f3' },
    testLabels: { name: 't10k-labels-idx1-ubyte', md5: 'ec29112dd5afa0611ce80d1b7f02629c' },
  },
  mirrors: [
    'https://ossci-datasets.s3.amazonaws.com/mnist/',
    'https://storage.googleapis.com/cvdf-datasets/mnist/',
  ],
}

/** Loads MNIST from the first place that has it; see docs/data.md for the order. */
export async function loadMnist(options: LoadOptions = {}): Promise<DataSet> {
  return await loadIdxDataSet(mnist, options)
}
