/**
 * Residual networks: ResNet50 for large images, with Keras's layer names, and ResNet-20, -32 and -56 for
 * small ones.
 */
import {
  add,
  averagePooling2d,
  batchNormalization,
  type Connection,
  channelPadding,
  connect,
  conv2d,
  dense,
  globalAveragePooling2d,
  type Layer,
  maxPooling2d,
  relu,
  zeroPadding2d,
} from '../nn/index.ts'
import { type Architecture, architecture, CIFAR_10, imageNet, type Source } from './architecture.ts'
import { centredPixels, chain } from './parts.ts'

const source: Source = {
  id: 'he-2016',
  citation:
    'K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385',
}

/** Keras's applications/resnet.py writes 1.001e-5. */
const EPSILON = 1.001e-5

/** Filters of the narrow convolutions, and blocks, of each stage of ResNet50. */
const STAGES = [
  [64, 3],
  [128, 4],
  [256, 6],
  [512, 3],
] as const

/** 1x1, 3x3 and 1x1 convolutions, the last four times as wide, beside a shortcut. */
function bottleneck(x: Connection, name: string, filters: number, strides: number, projected: boolean) {
  const conv = (n: number, width: number, options: { kernelSize: number; strides?: number }): Layer[] => [
    conv2d({ name: `${name}_${n}_conv`, filters: width, padding: 'same', ...options }),
    batchNormalization({ name: `${name}_${n}_bn`, epsilon: EPSILON }),
  ]
  const shortcut = projected ? chain(x, conv(0, 4 * filters, { kernelSize: 1, strides })) : x
  const residual = chain(x, [
    ...conv(1, filters, { kernelSize: 1, strides }),
    relu({ name: `${name}_1_relu` }),
    ...conv(2, filters, { kernelSize: 3 }),
    relu({ name: `${name}_2_relu` }),
    ...conv(3, 4 * filters, { kernelSize: 1 }),
  ])
  return connect(relu({ name: `${name}_out` }), connect(add({ name: `${name}_add` }), shortcut, residual))
}

const resnet50 = architecture({
  name: 'resnet50',
  title: 'ResNet50',
  source,
  native: imageNet(224),
  pretrained: { preprocessing: 'caffe', head: ['avg_pool', 'predictions'] },
  stated: [
    'a convolution 7x7 and 16 bottleneck blocks in four stages, projections where the shape changes (option B)',
    'batch normalization after each convolution, before the activation; He initialization',
  ],
  assumed: [
    "as in Keras's application: convolutions with biases, strides in the first 1x1 convolution of a stage, Glorot uniform",
    'pixels in -1..1; for weights that were trained on ImageNet, BGR channels less their means instead',
  ],
  network(images, classes, { pixels }) {
    let x = chain(images, [
      pixels,
      zeroPadding2d({ name: 'conv1_pad', padding: 3 }),
      conv2d({ name: 'conv1_conv', filters: 64, kernelSize: 7, strides: 2 }),
      batchNormalization({ name: 'conv1_bn', epsilon: EPSILON }),
      relu({ name: 'conv1_relu' }),
      zeroPadding2d({ name: 'pool1_pad' }),
      maxPooling2d({ name: 'pool1_pool', poolSize: 3, strides: 2 }),
    ])
    for (const [stage, [filters, blocks]] of STAGES.entries())
      for (let block = 1; block <= blocks; block++) {
        const first = block === 1
        const strides = first && stage > 0 ? 2 : 1
        x = bottleneck(x, `conv${stage + 2}_block${block}`, filters, strides, first)
      }
    return chain(x, [
      globalAveragePooling2d({ name: 'avg_pool' }),
      dense({ name: 'predictions', units: classes }),
    ])
  },
})

/**
 * A 3x3 convolution and its normalization. With a stride it is padded by 1 on all sides, so that it stays
 * centred on the pixels that the shortcut takes.
 */
function normalizedConv(name: string, filters: number, strides = 1): Layer[] {
  const options = { name, filters, kernelSize: 3, useBias: false, kernelInitializer: 'heNormal' } as const
  const conv =
    strides === 1
      ? [conv2d({ ...options, padding: 'same' })]
      : [zeroPadding2d({ name: `${name}/pad` }), conv2d({ ...options, strides })]
  return [...conv, batchNormalization({ name: `${name}/norm` })]
}

/** Two 3x3 convolutions beside a shortcut without parameters. */
function basicBlock(x: Connection, name: string, filters: number, strides: number) {
  const smaller = [
    averagePooling2d({ name: `${name}/every-second`, poolSize: 1, strides }),
    channelPadding({ name: `${name}/zeros`, channels: filters }),
  ]
  const shortcut = strides === 1 ? x : chain(x, smaller)
  const residual = chain(x, [
    ...normalizedConv(`${name}/conv1`, filters, strides),
    relu({ name: `${name}/relu1` }),
    ...normalizedConv(`${name}/conv2`, filters),
  ])
  return connect(relu({ name: `${name}/relu2` }), connect(add({ name: `${name}/add` }), shortcut, residual))
}

/** Section 4.2: 6 n + 2 layers, three stages of 16, 32 and 64 filters. */
function cifarResnet(n: number, parameters: string): Architecture {
  const depth = 6 * n + 2
  return architecture({
    name: `resnet${depth}`,
    title: `ResNet-${depth} for small images`,
    source,
    native: CIFAR_10,
    stated: [
      `section 4.2: a convolution 3x3, then three stages of ${n} blocks of two convolutions 3x3 with 16, 32 and 64 filters; ${parameters} parameters`,
      'shortcuts without parameters (option A): every second pixel, zeros for the new channels',
      'batch normalization after each convolution, He initialization',
      'training: SGD with momentum 0.9 and weight decay 1e-4, minibatches of 128, a learning rate of 0.1, a tenth of it at 32,000 and 48,000 of 64,000 steps; padded by 4 and cropped, flipped',
    ],
    assumed: ['pixels in -1..1, in the place of subtracting the mean image', 'convolutions without biases'],
    network(images, classes) {
      let x = chain(images, [centredPixels(), ...normalizedConv('conv1', 16), relu({ name: 'relu1' })])
      for (const [stage, filters] of [16, 32, 64].entries())
        for (let block = 1; block <= n; block++)
          x = basicBlock(x, `stage${stage + 1}/block${block}`, filters, stage > 0 && block === 1 ? 2 : 1)
      return chain(x, [globalAveragePooling2d(), dense({ name: 'logits', units: classes })])
    },
  })
}

export const resnets: readonly Architecture[] = [
  resnet50,
  cifarResnet(3, '0.27M'),
  cifarResnet(5, '0.46M'),
  cifarResnet(9, '0.85M'),
]
