/** A small program whose steps have all that is updated. */
import { compileTraining } from '../src/compile/train-program.ts'
import type { Layer } from '../src/nn/layer.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import { dense, dropout, flatten, rescaling } from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import type { Optimizer } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { noise } from './train-with.ts'

const size = [6, 6, 1] as const
export const data = noise(40, size, 3)

/** Small parameters, which are one vector; a large kernel; one that is kept transposed; moving averages. */
const layers = (): Layer[] => [
  rescaling({ scale: 1 / 255 }),
  conv2d({ filters: 4, kernelSize: 3 }),
  batchNormalization({ momentum: 0.5 }),
  flatten(),
  dropout(0.2),
  dense({ units: 700, activation: 'relu', kernelRegularizer: l2(1e-3) }),
  dense({ units: 3 }),
]

export const model = () => sequential(layers(), { input: size, name: 'small' })

export const compiled = (optimizer: Optimizer, batchSize = 8, options: object = {}) =>
  compileTraining({
    model: model(),
    loss: crossEntropy(),
    optimizer,
    batchSize,
    ...options,
  })
