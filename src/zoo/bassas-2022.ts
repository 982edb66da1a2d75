/**
 * Seraphin Bassas, Hays Johnson and Clemence Granade, "Classification on Image Data",
 * McGill University, March 2022.
 */
import {
  conv2d,
  type DenseOptions,
  dense,
  dropout,
  flatten,
  type Layer,
  maxPooling2d,
  rescaling,
} from '../nn/index.ts'
import { type Architecture, architecture, FASHION_MNIST, type Source } from './architecture.ts'
import { chain, hiddenLayers } from './parts.ts'

const source: Source = {
  id: 'bassas-2022',
  citation:
    'S. Bassas, H. Johnson and C. Granade, "Classification on Image Data", McGill University, March 2022',
}

/** Mean pixel of Fashion-MNIST's training images, of 0..1. */
const MEAN = 0.286

const normalized = () => rescaling({ scale: 1 / 255, offset: -MEAN })
const unnormalized = () => rescaling({ scale: 1, offset: -255 * MEAN })

const CENTRED = `centring: the mean pixel of Fashion-MNIST's training images, ${MEAN} of 0..1, is subtracted`

const convolutional = architecture({
  name: 'bassas/cnn',
  title: 'Tuned CNN',
  source,
  native: FASHION_MNIST,
  least: 4,
  stated: [
    'two convolutions of 64 filters of 7x7, a max pooling after each, two dense layers; over 623 thousand parameters',
    'centring, pixels / 255',
    'Adam with a learning rate of 1e-4, minibatches of 32, early stopping with a patience of 10 epochs; 10,000 training images',
  ],
  assumed: [
    CENTRED,
    '"same" padding, pooling 2x2, hidden layers of 128 and 128 before the output layer: these have 623,306 parameters',
    'relu after each convolution and hidden layer',
  ],
  network: (images, classes) =>
    chain(images, [
      normalized(),
      ...[1, 2].flatMap(n => [
        conv2d({ name: `conv${n}`, filters: 64, kernelSize: 7, padding: 'same', activation: 'relu' }),
        maxPooling2d({ name: `pool${n}` }),
      ]),
      flatten(),
      ...hiddenLayers([128, 128]),
      dense({ name: 'logits', units: classes }),
    ]),
})

interface Variant {
  /** Of each hidden layer; one number a layer. */
  readonly widths: readonly number[]
  /** Default: relu. */
  readonly activation?: NonNullable<DenseOptions['activation']>
  readonly dropped?: number
  /** Default: centred, of 0..1. */
  readonly pixels?: () => Layer
  readonly stated: string
  readonly assumed?: readonly string[]
}

function mlp(kind: string, title: string, variant: Variant): Architecture {
  const { widths, activation = 'relu', dropped, pixels = normalized, stated, assumed = [] } = variant
  return architecture({
    name: `bassas/${kind}`,
    title,
    source,
    native: FASHION_MNIST,
    stated: [
      stated,
      'centring',
      'minibatch SGD; with three layers a learning rate of 0.002 and minibatches of 32; 10,000 training images',
    ],
    assumed: [CENTRED, 'kernels start from Glorot uniform, biases from 0', ...assumed],
    network: (images, classes) =>
      chain(images, [
        pixels(),
        flatten(),
        ...hiddenLayers(widths, { activation }, dropped === undefined ? [] : [dropout(dropped)]),
        dense({ name: 'logits', units: classes }),
      ]),
  })
}

const THREE = [128, 128, 128]

export const bassas2022: readonly Architecture[] = [
  convolutional,
  mlp('mlp-1', '1-layer MLP', { widths: [128], stated: 'a hidden layer of 128, ReLU; pixels / 255' }),
  mlp('mlp-2', '2-layer MLP', { widths: [128, 128], stated: 'two hidden layers of 128, ReLU; pixels / 255' }),
  mlp('mlp-3', '3-layer MLP', { widths: THREE, stated: 'three hidden layers of 128, ReLU; pixels / 255' }),
  mlp('mlp-3-leaky-relu', '3-layer MLP, LeakyReLU', {
    widths: THREE,
    activation: { activation: 'leakyRelu', slope: 0.1 },
    stated: 'three hidden layers of 128, LeakyReLU of slope 0.1; pixels / 255',
  }),
  mlp('mlp-3-tanh', '3-layer MLP, tanh', {
    widths: THREE,
    activation: 'tanh',
    stated: 'three hidden layers of 128, tanh; pixels / 255',
  }),
  mlp('mlp-3-dropout', '3-layer MLP, dropout', {
    widths: THREE,
    dropped: 0.2,
    stated: 'three hidden layers of 128, ReLU, dropout of 0.2 after each; pixels / 255',
  }),
  mlp('mlp-3-dropout-256', '3-layer MLP of 256, dropout', {
    widths: [256, 256, 256],
    dropped: 0.2,
    stated: 'three hidden layers of 256, ReLU, dropout after each; pixels / 255',
    assumed: ['the dropout of 0.2 that was best with 128 units'],
  }),
  mlp('mlp-3-unnormalized', '3-layer MLP, pixels 0..255', {
    widths: THREE,
    pixels: unnormalized,
    stated: 'three hidden layers of 128, ReLU; pixels not scaled to 0..1',
    assumed: ['unnormalized pixels are centred too: only the scaling is said to be left out'],
  }),
]
