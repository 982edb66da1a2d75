/**
 * Quoc Anh Bui and Anshumaan Chauhan, "VisionNet: Investigating the Influence of Brain-Inspired
 * Features on CNNs for the task of Image Classification". VGG16, ResNet50 and Xception, which it
 * fine-tunes, have files of their own.
 */
import { mapAttention, pixelAttention, valueAttention } from '../nn/brain/index.ts'
import { EXACT_VALUES, GRID_INTERVALS } from '../nn/brain/value-attention.ts'
import { batchNormalization, conv2d, dense, flatten, type Layer, maxPooling2d, relu } from '../nn/index.ts'
import { type Architecture, architecture, CIFAR_10, type Source } from './architecture.ts'
import { chain, hiddenLayers, unitPixels } from './parts.ts'

const source: Source = {
  id: 'visionnet',
  citation:
    'Q. A. Bui and A. Chauhan, "VisionNet: Investigating the Influence of Brain-Inspired Features on CNNs for the task of Image Classification", University of Massachusetts Amherst (report, undated)',
}

const FILTERS = [32, 64, 128, 256]
const WIDTHS = [256, 128, 64]
/** Length of the queries and keys of attention among feature maps. */
const MAP_KEY_DIM = 64

/** The layers before the classifier: attention, where there is any, right after each convolution. */
function body(attention: (n: number) => readonly Layer[]): Layer[] {
  return FILTERS.flatMap((filters, i) => {
    const n = i + 1
    return [
      conv2d({ name: `conv${n}`, filters, kernelSize: 3, padding: 'same' }),
      ...attention(n),
      batchNormalization({ name: `norm${n}` }),
      relu({ name: `relu${n}` }),
      // Not after the last: its map would have 2x2 pixels left, too few for Grad-CAM.
      ...(n < FILTERS.length ? [maxPooling2d({ name: `pool${n}` })] : []),
    ]
  })
}

interface Variant {
  readonly kind: string
  readonly title: string
  readonly stated: readonly string[]
  readonly assumed: readonly string[]
  readonly attention: (n: number) => readonly Layer[]
}

const variant = ({ kind, title, stated, assumed, attention }: Variant) =>
  architecture({
    name: `visionnet/${kind}`,
    title,
    source,
    native: CIFAR_10,
    least: 8,
    stated: [
      'four times: convolution, batch normalization, ReLU, optional pooling',
      'a classifier of three hidden layers',
      'Adam with a learning rate of 1e-3, over 20 epochs',
      ...stated,
    ],
    assumed: [
      'pixels / 255',
      `${FILTERS.join(', ')} filters of 3x3, "same"; maximum pooling 2x2 after each but the last`,
      `hidden layers of ${WIDTHS.join(', ')}, relu`,
      ...assumed,
    ],
    network: (images, classes) =>
      chain(images, [
        unitPixels(),
        ...body(attention),
        flatten(),
        ...hiddenLayers(WIDTHS),
        dense({ name: 'logits', units: classes }),
      ]),
  })

const PLACE = 'attention stands between each of the four convolutions and its batch normalization'

export const visionnet: readonly Architecture[] = [
  variant({ kind: 'plain', title: 'Vanilla CNN', stated: [], assumed: [], attention: () => [] }),
  variant({
    kind: 'attention-1',
    title: 'CNN, attention among all values',
    stated: [
      'queries, keys and values by 1x1x1 kernels, one number each, reused over all convolutions; added to the input',
    ],
    assumed: [
      PLACE,
      `above ${EXACT_VALUES.toLocaleString('en-US')} values an image, the response is computed at ${GRID_INTERVALS + 1} queries and read in between`,
    ],
    attention: n => [valueAttention({ name: `attention${n}`, shared: 'attention' })],
  }),
  variant({
    kind: 'attention-2',
    title: 'CNN, attention among positions',
    stated: ['one weight for all channels of a position, not shared between layers; added to the input'],
    assumed: [
      PLACE,
      'queries and keys are as long as there are channels',
      'value kernels begin at zero: otherwise it learns far more slowly than without attention',
    ],
    attention: n => [pixelAttention({ name: `attention${n}`, valueInitializer: 'zeros' })],
  }),
  variant({
    kind: 'attention-3',
    title: 'CNN, attention among feature maps',
    stated: ['feature maps are the tokens and their own values; the result is appended to the input'],
    assumed: [PLACE, `queries and keys of ${MAP_KEY_DIM} numbers`],
    attention: n => [mapAttention({ name: `attention${n}`, keyDim: MAP_KEY_DIM })],
  }),
]
