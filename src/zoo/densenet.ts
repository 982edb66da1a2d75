/** DenseNet-BC for small images: 100 layers, 12 new channels each. */
import {
  averagePooling2d,
  batchNormalization,
  concatenate,
  connect,
  conv2d,
  dense,
  globalAveragePooling2d,
  type Layer,
  relu,
} from '../nn/index.ts'
import { architecture, CIFAR_10 } from './architecture.ts'
import { centredPixels, chain } from './parts.ts'

const DEPTH = 100
const GROWTH = 12
/** Filters of the first convolution. */
const FIRST = 2 * GROWTH
const COMPRESSION = 0.5
const BLOCKS = 3
/** A layer of a block has two convolutions; the first, the transitions and the classifier are four more. */
const LAYERS = (DEPTH - 4) / (2 * BLOCKS)

const conv = (name: string, filters: number, kernelSize: number): Layer =>
  conv2d({ name, filters, kernelSize, padding: 'same', useBias: false, kernelInitializer: 'heNormal' })

/** Normalization and relu come before a convolution. */
const activated = (name: string) => [
  batchNormalization({ name: `${name}/norm` }),
  relu({ name: `${name}/relu` }),
]

export const densenetBc = architecture({
  name: 'densenet-bc',
  title: 'DenseNet-BC (L 100, k 12)',
  source: {
    id: 'huang-2017',
    citation:
      'G. Huang, Z. Liu, L. van der Maaten and K. Q. Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, arXiv 1608.06993',
  },
  native: CIFAR_10,
  least: 4,
  stated: [
    `${BLOCKS} blocks of ${LAYERS} layers: batch normalization, ReLU, 1x1 convolution of ${4 * GROWTH}, batch normalization, ReLU, 3x3 convolution of ${GROWTH}, appended to what the layer read; 0.8M parameters`,
    `a first 3x3 convolution of ${FIRST}, twice the growth rate; at the end the mean of each map and one dense layer`,
    'transitions: batch normalization, 1x1 convolution to half the channels, average pooling 2x2',
    'He initialization',
    'training: SGD with Nesterov momentum 0.9 and weight decay 1e-4, minibatches of 64, 300 epochs, a learning rate of 0.1, a tenth of it at half and at three quarters',
  ],
  assumed: [
    'pixels in -1..1, in the place of each channel less its mean and divided by its standard deviation',
    'no dropout, as the paper with augmented images; it drops 0.2 without',
    "from the authors' code: ReLU after the batch normalization of a transition, batch normalization and ReLU after the last block, convolutions without biases",
  ],
  network(images, classes) {
    let channels = FIRST
    let x = chain(images, [centredPixels(), conv('conv1', channels, 3)])
    for (let block = 1; block <= BLOCKS; block++) {
      for (let n = 1; n <= LAYERS; n++) {
        const name = `block${block}/layer${n}`
        const added = chain(x, [
          ...activated(`${name}/narrow`),
          conv(`${name}/narrow`, 4 * GROWTH, 1),
          ...activated(`${name}/wide`),
          conv(`${name}/wide`, GROWTH, 3),
        ])
        x = connect(concatenate({ name: `${name}/out` }), x, added)
        channels += GROWTH
      }
      if (block === BLOCKS) break
      channels = Math.floor(channels * COMPRESSION)
      const name = `transition${block}`
      const pool = averagePooling2d({ name: `${name}/pool` })
      x = chain(x, [...activated(name), conv(name, channels, 1), pool])
    }
    return chain(x, [
      ...activated('last'),
      globalAveragePooling2d(),
      dense({ name: 'logits', units: classes }),
    ])
  },
})
