/**
 * TensorFlow.js as a peer of the bench, by the protocol of bench/README.md.
 *
 *   npm ci --prefix bench/peers
 *   node bench/peers/tfjs-peer.mjs --backend wasm        then one request a line; or `--backend cpu`
 *
 * To be fair to it: the core API, without the overhead of tfjs-layers' fit; tf.tidy around each step; its own
 * Adam; the loss is not read back, except once at the end of a request; minibatches are gathered from one
 * byte array; checks are off (tf.enableProdMode); in evaluation convolutions and products are fused with bias
 * and relu; what its back ends lack in training, or do slowly, is composed of its public operations
 * (tfjs-ops.mjs says what, and why). WASM runs with SIMD. Both back ends use one thread in Node whatever the
 * job says: the library switches its threads off there (its flag WASM_HAS_MULTITHREAD_SUPPORT, its issue 3830).
 */
import { parseArgs } from 'node:util'
import * as tf from '@tensorflow/tfjs'
import { forward, inhibition, readNetwork, slopeOf, windows } from './js-network.mjs'
import { serve } from './js-protocol.mjs'
import { addBias, aroundMaps, batchNormalization, operations } from './tfjs-ops.mjs'

const { backend } = parseArgs({ options: { backend: { type: 'string', default: 'wasm' } } }).values
if (backend !== 'wasm' && backend !== 'cpu') {
  console.error(`tfjs-peer: --backend must be wasm or cpu, received "${backend}"`)
  process.exit(2)
}
if (backend === 'wasm') await import('@tensorflow/tfjs-backend-wasm')
tf.enableProdMode()
if (!(await tf.setBackend(backend))) throw new Error(`tfjs: the back end ${backend} did not start`)
await tf.ready()
const simd = backend === 'wasm' && (await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT'))
const ops = operations[backend]

function activate(x, activation) {
  switch (activation?.activation ?? activation) {
    case 'relu':
      return tf.relu(x)
    case 'tanh':
      return tf.tanh(x)
    case 'leakyRelu':
      return tf.leakyRelu(x, slopeOf(activation))
    default:
      return x
  }
}

/** What each kind of layer computes; `weight(use, part)` is a variable or a constant. */
function layerFunctions(weight, training) {
  const isImages = new Set(['input'])
  const windowOf = ({ layer, from }) => ({ strides: layer.strides, ...windows(from, layer) })

  /** activation(x by kernel + bias), fused where nothing is trained. */
  const withBias = (use, plain, fused) => {
    const { activation, useBias } = use.layer
    const bias = useBias ? weight(use, 'bias') : undefined
    if (training) {
      const y = plain()
      return activate(bias ? addBias(y, bias) : y, activation)
    }
    if (activation === 'relu') return fused({ bias, activation: 'relu' })
    return activate(fused({ bias, activation: 'linear' }), activation)
  }

  const multiplied = ([x], use, kernel) =>
    withBias(
      use,
      () => ops.matMul(x, kernel),
      options => tf.fused.matMul({ a: x, b: kernel, ...options }),
    )

  const convolved = (x, use, kernel, { strides, pads }) =>
    withBias(
      use,
      () => ops.conv2d(x, kernel, { strides, pads }, !isImages.has(use.inputs[0])),
      options => tf.fused.conv2d({ x, filter: kernel, strides, pad: aroundMaps(pads), ...options }),
    )

  return {
    rescaling([x], { name, layer, inputs }) {
      if (isImages.has(inputs[0])) isImages.add(name)
      const scaled = tf.mul(x, layer.scale)
      return layer.offset === 0 ? scaled : tf.add(scaled, layer.offset)
    },
    activation: ([x], { layer }) => activate(x, layer.activation),
    flatten: ([x], { shape }) => tf.reshape(x, [-1, ...shape]),
    add: inputs => inputs.reduce((a, b) => tf.add(a, b)),
    globalAveragePooling2d: ([x]) => tf.mean(x, [1, 2]),
    dense: (inputs, use) => multiplied(inputs, use, weight(use, 'kernel')),
    sparseDense: (inputs, use) => multiplied(inputs, use, tf.mul(weight(use, 'kernel'), weight(use, 'mask'))),
    conv2d: ([x], use) => convolved(x, use, weight(use, 'kernel'), windowOf(use)),
    separableConv2d([x], use) {
      const { strides, pads } = windowOf(use)
      if (strides.some(stride => stride !== 1))
        throw new Error(`layer "${use.name}": strides: expected [1,1], received [${strides}]`)
      const maps = ops.depthwise(x, weight(use, 'depthwiseKernel'), { pads })
      const unpadded = {
        strides: [1, 1],
        pads: [
          [0, 0],
          [0, 0],
        ],
      }
      return convolved(maps, use, weight(use, 'pointwiseKernel'), unpadded)
    },
    maxPooling2d: ([x], { layer }) => ops.maxPool(x, layer),
    averagePooling2d: ([x], { layer }) => tf.avgPool(x, layer.kernelSize, layer.strides, layer.padding),
    zeroPadding2d: ([x], { layer }) => tf.pad(x, aroundMaps(layer.padding)),
    channelPadding([x], { layer }) {
      const missing = layer.channels - x.shape[3]
      return tf.pad(x, [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, missing],
      ])
    },
    lateralInhibition([x], { name, layer }) {
      const side = [layer.radius, layer.radius]
      return ops.depthwise(x, inhibitionKernel(name, layer, x.shape[3]), { pads: [side, side] }, false)
    },
    pixelAttention([x], use) {
      const [n, height, width, channels] = x.shape
      const tokens = tf.reshape(x, [n * height * width, channels])
      const [query, key, value] = ['query', 'key', 'value'].map(part => {
        const kernel = weight(use, part)
        return tf.reshape(ops.matMul(tokens, kernel), [n, height * width, kernel.shape[1]])
      })
      const scaled = tf.mul(query, query.shape[2] ** -0.5)
      const weights = tf.softmax(ops.matMul(scaled, tf.transpose(key, [0, 2, 1])))
      return tf.add(x, tf.reshape(ops.matMul(weights, value), x.shape))
    },
    batchNormalization([x], use) {
      const { momentum, epsilon } = use.layer
      const [gamma, beta, movingMean, movingVariance] = ['gamma', 'beta', 'movingMean', 'movingVariance'].map(
        part => weight(use, part),
      )
      if (!training) {
        const factor = tf.mul(gamma, tf.rsqrt(tf.add(movingVariance, epsilon)))
        return tf.add(tf.mul(x, factor), tf.sub(beta, tf.mul(movingMean, factor)))
      }
      const move = (average, value) =>
        average.assign(tf.add(tf.mul(average, momentum), tf.mul(value, 1 - momentum)))
      return batchNormalization(x, gamma, beta, epsilon, (mean, variance) => {
        move(movingMean, mean)
        move(movingVariance, variance)
      })
    },
  }

  /** The whole mechanism as one depthwise kernel [2 r + 1, 2 r + 1, C, 1]. */
  function inhibitionKernel(name, layer, channels) {
    const { taps, centre, surround } = inhibition(layer)
    const values = taps.flatMap((down, i) =>
      taps.flatMap((right, j) => {
        const value = surround * down * right + (i === layer.radius && j === layer.radius ? centre : 0)
        return new Array(channels).fill(value)
      }),
    )
    return weight({ name }, 'kernel', () => tf.tensor(values, [taps.length, taps.length, channels, 1]))
  }
}

async function begin({ model, seed, batch, shape, classes }) {
  const network = readNetwork(model, seed)
  const variables = new Map()
  const trained = []
  const penalized = []
  for (const { name, shape, values, l2 } of network.parameters) {
    const variable = tf.variable(tf.tensor(values, shape))
    variables.set(name, variable)
    trained.push(variable)
    if (l2 !== 0) penalized.push({ variable, l2 })
  }
  for (const { name, shape, values } of [...network.averages, ...network.masks])
    variables.set(name, tf.variable(tf.tensor(values, shape), false))
  const weight = ({ name }, part, make) => {
    const full = `${name}/${part}`
    if (!variables.has(full)) variables.set(full, tf.keep(make()))
    return variables.get(full)
  }
  const [train, evaluate] = [true, false].map(training => layerFunctions(weight, training))
  const lossOf = (logits, labels) =>
    penalized.reduce(
      (sum, { variable, l2 }) => tf.add(sum, tf.mul(tf.sum(tf.square(variable)), l2)),
      tf.losses.softmaxCrossEntropy(labels, logits),
    )
  const tensors = (images, oneHot) => [
    tf.tensor(images, [batch, ...shape.slice(1)]),
    tf.tensor(oneHot, [batch, classes]),
  ]
  const optimizer = tf.train.adam(1e-3, 0.9, 0.999, 1e-7)
  let last

  return {
    parameters: network.count,
    step(images, oneHot) {
      last?.dispose()
      last = tf.tidy(() => {
        const [x, labels] = tensors(images, oneHot)
        return optimizer.minimize(() => lossOf(forward(network, x, train), labels), true, trained)
      })
    },
    async settle() {
      return (await last.data())[0]
    },
    async evaluate(images, oneHot) {
      const [loss, logits] = tf.tidy(() => {
        const [x, labels] = tensors(images, oneHot)
        const logits = forward(network, x, evaluate)
        return [lossOf(logits, labels), logits]
      })
      const result = { loss: (await loss.data())[0], logits: await logits.data() }
      tf.dispose([loss, logits])
      return result
    },
    end() {
      last?.dispose()
      optimizer.dispose()
      for (const variable of variables.values()) variable.dispose()
    },
  }
}

await serve({
  peer: `tfjs-${backend}`,
  version: `${tf.version.tfjs}${simd ? ', SIMD' : ''}`,
  begin,
})
