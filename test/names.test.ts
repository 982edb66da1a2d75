/** The hints of "did you mean". */
import { expect, test } from 'vitest'
import { nearest } from '../src/util/errors.ts'

const models = ['singh-brar/basic', 'singh-brar/sparse', 'singh-brar/lateral-inhibition']
const layers = ['add', 'dense', 'conv2d', 'depthwiseConv2d', 'maxPooling2d', 'flatten', 'layerNormalization']

test.for([
  ['singh-brar/latral', models, 'singh-brar/lateral-inhibition'],
  ['singh-bra/sparce', models, 'singh-brar/sparse'],
  ['singh-brar-basic', models, 'singh-brar/basic'],
  ['sparse', models, 'singh-brar/sparse'],
  ['lateral', models, 'singh-brar/lateral-inhibition'],
  ['inhibition', models, 'singh-brar/lateral-inhibition'],
  ['basci', models, 'singh-brar/basic'],
  ['foo', layers, undefined],
  ['', layers, undefined],
  ['x', layers, undefined],
  ['singh-brar/visionnet', models, undefined],
  ['conv', layers, 'conv2d'],
  ['Conv2D', layers, 'conv2d'],
  ['layerNorm', layers, 'layerNormalization'],
  ['pooling', layers, 'maxPooling2d'],
  ['tpu', ['cpu', 'cuda', 'webgpu'], 'cpu'],
  ['gpu', ['cpu', 'cuda', 'webgpu'], 'webgpu'],
  ['l3', ['l1', 'l2'], 'l1'],
  ['small', ['smoke', 'quick', 'paper'], undefined],
] as const)('"%s"', ([name, known, expected]) => {
  expect(nearest(name, known)).toBe(expected)
})
