/** VGG16, its layers named as in Keras's applications/vgg16.py. */
import { conv2d, dense, flatten, globalAveragePooling2d, maxPooling2d } from '../nn/index.ts'
import { architecture, imageNet } from './architecture.ts'
import { chain } from './parts.ts'

/** The filters of each convolution, block by block. */
const BLOCKS = [
  [64, 64],
  [128, 128],
  [256, 256, 256],
  [512, 512, 512],
  [512, 512, 512],
]

export const vgg16 = architecture({
  name: 'vgg16',
  title: 'VGG16',
  source: {
    id: 'simonyan-2015',
    citation:
      'K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv 1409.1556',
  },
  native: imageNet(224),
  least: 32,
  pretrained: { preprocessing: 'caffe', head: ['flatten', 'fc1', 'fc2', 'predictions'] },
  stated: [
    'its configuration D: 13 convolutions 3x3 with ReLU in five blocks, a max pooling 2x2 after each, dense layers of 4096 and 4096',
  ],
  assumed: [
    "Keras's initializers (Glorot uniform), and no dropout, as in Keras's application",
    'pixels in -1..1; for weights that were trained on ImageNet, BGR channels less their means instead',
  ],
  network: (images, classes, { pixels, top }) =>
    chain(images, [
      pixels,
      ...BLOCKS.flatMap((block, i) => [
        ...block.map((filters, j) =>
          conv2d({
            name: `block${i + 1}_conv${j + 1}`,
            filters,
            kernelSize: 3,
            padding: 'same',
            activation: 'relu',
          }),
        ),
        maxPooling2d({ name: `block${i + 1}_pool` }),
      ]),
      ...(top === 'pooling'
        ? [globalAveragePooling2d({ name: 'avg_pool' })]
        : [
            flatten({ name: 'flatten' }),
            dense({ name: 'fc1', units: 4096, activation: 'relu' }),
            dense({ name: 'fc2', units: 4096, activation: 'relu' }),
          ]),
      dense({ name: 'predictions', units: classes }),
    ]),
})
