/**
 * CIFAR-10 and CIFAR-100: 32 x 32 colour images of ten classes, and of a hundred in twenty superclasses;
 * 50,000 for training and 10,000 for testing each. Krizhevsky, "Learning multiple layers of features from
 * tiny images", University of Toronto, 2009.
 */
import { cifar10Classes, cifar100Classes, cifar100Superclasses } from './cifar-classes.ts'
import type { CifarDefinition } from './cifar-data-set.ts'

const published = {
  imageShape: [32, 32, 3],
  train: 50_000,
  test: 10_000,
  source: 'Krizhevsky, Nair and Hinton, https://www.cs.toronto.edu/~kriz/cifar.html',
  licence: 'none stated',
  mirrors: ['https://www.cs.toronto.edu/~kriz/'],
} as const

/** CIFAR-10. */
export const cifar10: CifarDefinition = {
  ...published,
  name: 'cifar-10',
  title: 'CIFAR-10',
  cacheFolder: 'cifar-10',
  classes: cifar10Classes,
  binary: {
    archive: { name: 'cifar-10-binary.tar.gz', md5: 'c32a1d4ab5d03f1284b67883e8d87530' },
    folder: 'cifar-10-batches-bin',
    train: [1, 2, 3, 4, 5].map(n => `data_batch_${n}.bin`),
    test: ['test_batch.bin'],
    classNames: 'batches.meta.txt',
    labelsPerImage: 1,
    label: 0,
  },
  python: {
    archive: { name: 'cifar-10-python.tar.gz', md5: 'c58f30108f718f92721af3b95e74349a' },
    folder: 'cifar-10-batches-py',
    train: [1, 2, 3, 4, 5].map(n => `data_batch_${n}`),
    test: ['test_batch'],
    classNames: 'batches.meta',
    classNamesKey: 'label_names',
    labelsKey: 'labels',
  },
}

const cifar100Binary = {
  archive: { name: 'cifar-100-binary.tar.gz', md5: '03b5dce01913d631647c71ecec9e9cb8' },
  folder: 'cifar-100-binary',
  train: ['train.bin'],
  test: ['test.bin'],
  labelsPerImage: 2,
} as const

const cifar100Python = {
  archive: { name: 'cifar-100-python.tar.gz', md5: 'eb9058c3a382ffc7106e4002c42a8d85' },
  folder: 'cifar-100-python',
  train: ['train'],
  test: ['test'],
  classNames: 'meta',
} as const

/** CIFAR-100 with its hundred classes, the fine labels. */
export const cifar100: CifarDefinition = {
  ...published,
  name: 'cifar-100',
  title: 'CIFAR-100',
  cacheFolder: 'cifar-100',
  classes: cifar100Classes,
  binary: { ...cifar100Binary, classNames: 'fine_label_names.txt', label: 1 },
  python: { ...cifar100Python, classNamesKey: 'fine_label_names', labelsKey: 'fine_labels' },
}

/** The same images with their twenty superclasses, the coarse labels. */
export const cifar100Coarse: CifarDefinition = {
  ...published,
  name: 'cifar-100-coarse',
  title: 'CIFAR-100 (superclasses)',
  cacheFolder: 'cifar-100',
  classes: cifar100Superclasses,
  binary: { ...cifar100Binary, classNames: 'coarse_label_names.txt', label: 0 },
  python: { ...cifar100Python, classNamesKey: 'coarse_label_names', labelsKey: 'coarse_labels' },
}
