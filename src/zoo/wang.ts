/**
 * Constance Wang, "Training Fashion MNIST using Neural Networks": a dense network and a convolutional one.
 */
import { conv2d, dense, flatten, l2, maxPooling2d } from '../nn/index.ts'
import { type Architecture, architecture, FASHION_MNIST, type Source } from './architecture.ts'
import { chain, hiddenLayers, unitPixels } from './parts.ts'

const source: Source = {
  id: 'wang',
  citation: 'C. Wang, "Training Fashion MNIST using Neural Networks" (report, undated)',
}

const STRENGTH = 1e-4
const REGULARIZED = { kernelRegularizer: l2(STRENGTH) }
const STATED = [
  'relu in the hidden layers, softmax and cross-entropy at the end',
  'an L2 penalty on weights',
  'pixels / 255',
]
const ASSUMED = [`an L2 penalty of ${STRENGTH} on every kernel`]

const DENSE_WIDTHS = [300, 100]

const denseNetwork = architecture({
  name: 'wang/dense',
  title: 'Dense network',
  source,
  native: FASHION_MNIST,
  stated: [...STATED, 'flatten, two dense layers "from the sample code", widths tuned'],
  assumed: [
    ...ASSUMED,
    `hidden layers of ${DENSE_WIDTHS.join(' and ')}; the two do not count the output layer`,
  ],
  network: (images, classes) =>
    chain(images, [
      unitPixels(),
      flatten(),
      ...hiddenLayers(DENSE_WIDTHS, REGULARIZED),
      dense({ name: 'logits', units: classes, ...REGULARIZED }),
    ]),
})

const FILTERS = [32, 64]
const CNN_WIDTHS = [120, 84]

const convolutional = architecture({
  name: 'wang/cnn',
  title: 'LeNet-like CNN',
  source,
  native: FASHION_MNIST,
  least: 16,
  stated: [...STATED, "LeNet's order: convolutions that feed into pooling, then dense layers", 'no padding'],
  assumed: [
    ...ASSUMED,
    `${FILTERS.join(' and ')} filters of 5x5, each with maximum pooling 2x2 behind it`,
    `hidden layers of ${CNN_WIDTHS.join(' and ')}, as LeNet-5`,
  ],
  network: (images, classes) =>
    chain(images, [
      unitPixels(),
      ...FILTERS.flatMap((filters, i) => [
        conv2d({ name: `conv${i + 1}`, filters, kernelSize: 5, activation: 'relu', ...REGULARIZED }),
        maxPooling2d({ name: `pool${i + 1}` }),
      ]),
      flatten(),
      ...hiddenLayers(CNN_WIDTHS, REGULARIZED),
      dense({ name: 'logits', units: classes, ...REGULARIZED }),
    ]),
})

export const wang: readonly Architecture[] = [denseNetwork, convolutional]
