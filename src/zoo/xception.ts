/** Xception, its layers named as in Keras's applications/xception.py. */
import {
  add,
  batchNormalization,
  type Connection,
  connect,
  conv2d,
  dense,
  globalAveragePooling2d,
  type Layer,
  maxPooling2d,
  relu,
  separableConv2d,
} from '../nn/index.ts'
import { architecture, imageNet } from './architecture.ts'
import { chain } from './parts.ts'

/** A separable convolution and its normalization. */
const separable = (name: string, filters: number): Layer[] => [
  separableConv2d({ name, filters, kernelSize: 3, padding: 'same', useBias: false }),
  batchNormalization({ name: `${name}_bn` }),
]

/** Separable convolutions, each with relu before it. */
const activated = (block: number, widths: readonly number[]) =>
  widths.flatMap((filters, i) => [
    relu({ name: `block${block}_sepconv${i + 1}_act` }),
    ...separable(`block${block}_sepconv${i + 1}`, filters),
  ])

/** Separable convolutions and a pooling, beside a 1x1 convolution, the `n`th. */
function reduction(x: Connection, n: number, block: number, layers: readonly Layer[], filters: number) {
  // Keras gives no name to the layers of its shortcuts, and numbers them: conv2d, conv2d_1, ...
  const count = n === 0 ? '' : `_${n}`
  const shortcut = chain(x, [
    conv2d({ name: `conv2d${count}`, filters, kernelSize: 1, strides: 2, padding: 'same', useBias: false }),
    batchNormalization({ name: `batch_normalization${count}` }),
  ])
  const pool = maxPooling2d({ name: `block${block}_pool`, poolSize: 3, strides: 2, padding: 'same' })
  return connect(add(), chain(x, [...layers, pool]), shortcut)
}

export const xception = architecture({
  name: 'xception',
  title: 'Xception',
  source: {
    id: 'chollet-2017',
    citation:
      'F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, arXiv 1610.02357',
  },
  native: imageNet(299),
  least: 7,
  pretrained: { preprocessing: 'tf', head: ['avg_pool', 'predictions'] },
  stated: [
    'two convolutions, then separable convolutions in 12 blocks with shortcuts and two more, batch normalization after each convolution, global average pooling',
  ],
  assumed: [
    "as in Keras's application: Glorot uniform, no dropout",
    "pixels in -1..1, as Keras's preprocessing for it",
  ],
  network(images, classes, { pixels }) {
    let x = chain(images, [
      pixels,
      conv2d({ name: 'block1_conv1', filters: 32, kernelSize: 3, strides: 2, useBias: false }),
      batchNormalization({ name: 'block1_conv1_bn' }),
      relu({ name: 'block1_conv1_act' }),
      conv2d({ name: 'block1_conv2', filters: 64, kernelSize: 3, useBias: false }),
      batchNormalization({ name: 'block1_conv2_bn' }),
      relu({ name: 'block1_conv2_act' }),
    ])
    // The first separable convolution reads maps that are rectified already.
    const [, ...second] = activated(2, [128, 128])
    x = reduction(x, 0, 2, second, 128)
    x = reduction(x, 1, 3, activated(3, [256, 256]), 256)
    x = reduction(x, 2, 4, activated(4, [728, 728]), 728)
    for (let block = 5; block <= 12; block++)
      x = connect(add(), chain(x, activated(block, [728, 728, 728])), x)
    x = reduction(x, 3, 13, activated(13, [728, 1024]), 1024)
    return chain(x, [
      ...separable('block14_sepconv1', 1536),
      relu({ name: 'block14_sepconv1_act' }),
      ...separable('block14_sepconv2', 2048),
      relu({ name: 'block14_sepconv2_act' }),
      globalAveragePooling2d({ name: 'avg_pool' }),
      dense({ name: 'predictions', units: classes }),
    ])
  },
})
