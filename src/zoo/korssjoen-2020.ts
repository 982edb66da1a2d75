/**
 * Dana Korssjoen, "Neural Networks for Image Recognition: Fashioning the Right Architecture", 13 March 2020.
 * Its appendix has the Keras code, so that no layer had to be guessed.
 */
import { batchNormalization, conv2d, dense, flatten, l2, maxPooling2d } from '../nn/index.ts'
import { type Architecture, architecture, FASHION_MNIST, type Source } from './architecture.ts'
import { chain, hiddenLayers, unitPixels } from './parts.ts'

const source: Source = {
  id: 'korssjoen-2020',
  citation:
    'D. Korssjoen, "Neural Networks for Image Recognition: Fashioning the Right Architecture", 13 March 2020',
}

const REGULARIZED = { kernelRegularizer: l2(1e-4) }
const HIDDEN = { ...REGULARIZED, activation: { activation: 'leakyRelu', slope: 0.1 } } as const
const STATED = [
  'pixels / 255',
  'LeakyReLU of slope 0.1; an L2 penalty of 1e-4 on the kernels of all dense layers, the last included',
  'Adam with a learning rate of 1e-4, 10 epochs, minibatches of 32; the first 5,000 training images validate',
]

const denseNetwork = architecture({
  name: 'korssjoen/dense',
  title: 'Dense network with batch normalization',
  source,
  native: FASHION_MNIST,
  stated: [...STATED, 'hidden layers of 1024, 512 and 256, batch normalization after the activation of each'],
  assumed: [],
  network: (images, classes) =>
    chain(images, [
      unitPixels(),
      flatten(),
      ...hiddenLayers([1024, 512, 256], HIDDEN, [batchNormalization()]),
      dense({ name: 'logits', units: classes, ...REGULARIZED }),
    ]),
})

const conv = (n: number, filters: number) =>
  conv2d({ name: `conv${n}`, filters, kernelSize: 5, padding: 'same', activation: 'tanh' })

const convolutional = architecture({
  name: 'korssjoen/cnn',
  title: 'CNN of three convolutions',
  source,
  native: FASHION_MNIST,
  least: 4,
  stated: [
    ...STATED,
    'convolutions 5x5 "same" with tanh: 128, pooling 2x2, 256, pooling 2x2, 512; hidden layers of 128 and 64',
  ],
  assumed: [],
  network: (images, classes) =>
    chain(images, [
      unitPixels(),
      conv(1, 128),
      maxPooling2d({ name: 'pool1' }),
      conv(2, 256),
      maxPooling2d({ name: 'pool2' }),
      conv(3, 512),
      flatten(),
      ...hiddenLayers([128, 64], HIDDEN),
      dense({ name: 'logits', units: classes, ...REGULARIZED }),
    ]),
})

export const korssjoen2020: readonly Architecture[] = [denseNetwork, convolutional]
