/** LeNet-5, as it is built today. */
import { averagePooling2d, conv2d, dense, flatten } from '../nn/index.ts'
import { architecture, MNIST } from './architecture.ts'
import { chain, hiddenLayers, unitPixels } from './parts.ts'

export const lenet5 = architecture({
  name: 'lenet5',
  title: 'LeNet-5',
  source: {
    id: 'lecun-1998',
    citation:
      'Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition", Proceedings of the IEEE 86(11), 1998',
  },
  native: MNIST,
  least: 12,
  stated: [
    'convolutions of 6 and 16 maps of 5x5, subsampling 2x2 after each, layers of 120 and 84, tanh',
    'digits of 28x28 in fields of 32x32',
  ],
  assumed: [
    'the first convolution is "same", which is the field of 32x32 around images of 28x28',
    'simplified as usual today: subsampling is the mean, without coefficients of its own; all maps of the second convolution see all 6; plain tanh; logits and cross-entropy in the place of radial basis functions',
    'pixels / 255',
  ],
  network: (images, classes) =>
    chain(images, [
      unitPixels(),
      conv2d({ name: 'conv1', filters: 6, kernelSize: 5, padding: 'same', activation: 'tanh' }),
      averagePooling2d({ name: 'pool1' }),
      conv2d({ name: 'conv2', filters: 16, kernelSize: 5, activation: 'tanh' }),
      averagePooling2d({ name: 'pool2' }),
      flatten(),
      ...hiddenLayers([120, 84], { activation: 'tanh' }),
      dense({ name: 'logits', units: classes }),
    ]),
})
