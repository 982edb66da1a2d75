/** The networks that the benchmark trains; bench/peers builds the same ones. */
import {
  batchNormalization,
  dense,
  flatten,
  leakyRelu,
  type Model,
  rescaling,
  sequential,
} from '../src/nn/index.ts'
import { architectureNamed } from '../src/zoo/index.ts'

const input = [28, 28, 1] as const
const pixels = rescaling({ scale: 1 / 255 })

/** Dense layers with batch norm after LeakyReLU, as in korssjoen-2020, without its L2. */
const mlp = (): Model =>
  sequential(
    [
      pixels,
      flatten(),
      ...[1024, 512, 256].flatMap(units => [
        dense({ units }),
        leakyRelu({ slope: 0.1 }),
        batchNormalization(),
      ]),
      dense({ units: 10 }),
    ],
    { name: 'mlp', input },
  )

/** Three hidden layers of 128, as in bassas-2022. */
const mlp3 = (): Model =>
  sequential(
    [
      pixels,
      flatten(),
      ...[128, 128, 128].map(units => dense({ units, activation: 'relu' as const })),
      dense({ units: 10 }),
    ],
    { name: 'mlp3', input },
  )

export interface BenchModel {
  readonly title: string
  readonly build: () => Model
  /** The peer's name for it; without one it is measured alone. */
  readonly peer?: string
}

export const benchModels: Readonly<Record<string, BenchModel>> = {
  basic: {
    title: 'singh-brar/basic CNN',
    build: () => architectureNamed('singh-brar/basic').build(input, 10),
    peer: 'basic',
  },
  mlp: { title: '784-1024-512-256-10 MLP, batch norm', build: mlp, peer: 'mlp' },
  mlp3: { title: '784-128-128-128-10 MLP', build: mlp3, peer: 'mlp3' },
  sparse: {
    title: 'singh-brar/sparse CNN',
    build: () => architectureNamed('singh-brar/sparse').build(input, 10),
  },
  'lateral-inhibition': {
    title: 'singh-brar/lateral-inhibition CNN',
    build: () => architectureNamed('singh-brar/lateral-inhibition').build(input, 10),
  },
}
