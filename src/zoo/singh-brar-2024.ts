/**
 * Eknoor Singh and Gurman Brar, "Improvement of Basic CNN Via Biological Mechanism Imitation For
 * Classification of Fashion MNIST Dataset", University of Waterloo, April 22, 2024.
 *
 * The paper states: Conv2D with relu, a max-pooling layer, flatten, two dense layers; in the sparse
 * network a random sparse layer in the place of the first dense layer; in the third the convolution's
 * outputs inhibited by their neighbours. Training and validation loss over 50 epochs (its figures: 70),
 * on 25 % and 100 % of the data.
 */
import { bernoulli, lateralInhibition, sparseDense } from '../nn/brain/index.ts'
import { adam, conv2d, crossEntropy, dense, flatten, type Layer, maxPooling2d } from '../nn/index.ts'
import { architecture, FASHION_MNIST, type Source } from './architecture.ts'
import type { Paper } from './paper.ts'
import { chain, unitPixels } from './parts.ts'

const source: Source = {
  id: 'singh-brar-2024',
  citation:
    'E. Singh and G. Brar, "Improvement of Basic CNN Via Biological Mechanism Imitation For Classification of Fashion MNIST Dataset", University of Waterloo, 2024',
}

const FILTERS = 32
const HIDDEN_UNITS = 128
const DENSITY = 0.1

const QUARTER =
  '"25 %": Table 1 labels these rows "25% Test Set", and section 2.2 speaks of 25 % and 100 % of the test set and of the training set; sections 3.1 and 3.2 compare networks trained on 25 % of the training set on the complete test set. Chosen: trained on a stratified quarter of the training images, tested on all test images, since a quarter of the test set alone would hardly lower the accuracy of the same network'

function network(
  kind: string,
  title: string,
  {
    stated = [],
    assumed = [],
  }: { readonly stated?: readonly string[]; readonly assumed?: readonly string[] },
  inhibition: readonly Layer[],
  hidden: () => Layer,
) {
  return architecture({
    name: `singh-brar/${kind}`,
    title,
    source,
    native: FASHION_MNIST,
    least: 4,
    stated: ['Conv2D with relu, max pooling, flatten, two dense layers', ...stated],
    assumed: [
      `${FILTERS} filters of 3x3, "valid"; pooling 2x2`,
      `a hidden layer of ${HIDDEN_UNITS}, relu`,
      ...assumed,
    ],
    network: (images, classes) =>
      chain(images, [
        unitPixels(),
        conv2d({ name: 'conv', filters: FILTERS, kernelSize: 3, activation: 'relu' }),
        ...inhibition,
        maxPooling2d({ name: 'pool' }),
        flatten(),
        hidden(),
        dense({ name: 'logits', units: classes }),
      ]),
  })
}

const denseHidden = () => dense({ name: 'hidden', units: HIDDEN_UNITS, activation: 'relu' })

const basic = network('basic', 'Basic CNN', {}, [], denseHidden)

const sparse = network(
  'sparse',
  'Sparse-connectivity CNN',
  {
    stated: ['the first dense layer is replaced by a random sparse layer'],
    assumed: [`each connection of the hidden layer is kept with probability ${DENSITY}, drawn once`],
  },
  [],
  () =>
    sparseDense({
      name: 'hidden',
      units: HIDDEN_UNITS,
      connectivity: bernoulli({ density: DENSITY }),
      activation: 'relu',
    }),
)

const inhibited = network(
  'lateral-inhibition',
  'Lateral-inhibition CNN',
  {
    stated: ["the convolution's outputs are inhibited"],
    assumed: [
      'inhibition is subtractive, in space, from a Gaussian neighbourhood of radius 2, of fixed strength 0.1',
    ],
  },
  [lateralInhibition({ name: 'inhibition', radius: 2, strength: 0.1 })],
  denseHidden,
)

const arms = [basic, sparse, inhibited].flatMap(({ name }) => {
  const short = name.replace('singh-brar/', '')
  return [
    { name: short, architecture: name, fraction: 1 },
    { name: `${short}, 25 %`, architecture: name, fraction: 0.25, assumed: [QUARTER] },
  ]
})
const whole = arms.filter(arm => arm.fraction === 1).map(arm => arm.name)

const claim = (arm: string, accuracy: number) => ({ arm, accuracy, place: 'Table 1' })

export const singhBrar2024: Paper = {
  ...source,
  question: 'Do sparse connectivity and lateral inhibition help a small CNN on Fashion-MNIST?',
  architectures: [basic, sparse, inhibited],
  arms,
  training: { optimizer: adam(), loss: crossEntropy(), batchSize: 32, validation: 0.1, test: 'best epoch' },
  assumed: [
    'Adam with a learning rate of 0.001, minibatches of 32, cross-entropy',
    '10 % of the training images, stratified, are held out for validation; the epoch that is best on them is tested',
  ],
  scales: {
    smoke: { dataSet: 'fashion-mnist-subset', epochs: 2, seeds: 2, arms: whole },
    quick: { dataSet: 'fashion-mnist', epochs: 2, seeds: 3, arms: whole },
    paper: { dataSet: 'fashion-mnist', epochs: 50, seeds: 5, arms: arms.map(arm => arm.name) },
  },
  claims: [
    claim('basic', 0.9999),
    claim('sparse', 0.9873),
    claim('lateral-inhibition', 1),
    claim('basic, 25 %', 0.9265),
    claim('sparse, 25 %', 0.9133),
    claim('lateral-inhibition, 25 %', 0.9271),
  ],
  remarks: [
    'The best result known on this test set is 96.91 % (Tanveer 2020): the claims near 100 % are above it.',
    'The paper gives one run for each network; here each seed draws its own weights, split and order.',
  ],
}
