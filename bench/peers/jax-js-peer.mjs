/**
 * jax-js as a peer of the bench, by the protocol of bench/README.md.
 *
 *   npm ci --prefix bench/peers
 *   node bench/peers/jax-js-peer.mjs        then one request a line
 *
 * To be fair to it: its WASM back end; a whole step (forward, backward, Adam, moving averages) is one jitted
 * function, so that the library fuses what it can; the loss is not read back, except once at the end of a
 * request; minibatches are gathered from one byte array. Convolutions are slices, concatenated, times the
 * kernel as a matrix, and pooling is the maximum of slices: on this back end lax.convGeneralDilated was 25
 * times slower forward and 45 times with its gradients (16 images of 16 x 16 x 64, kernel 3 x 3, 64 filters).
 * It has no optimizer on npm: Adam is written here. It uses one thread in Node whatever the job says: its
 * threads need the browser's `Worker`.
 */
import { readFile } from 'node:fs/promises'
import {
  blockUntilReady,
  defaultDevice,
  init,
  jit,
  lax,
  nn,
  numpy as np,
  tree,
  valueAndGrad,
} from '@jax-js/jax'
import { forward, inhibition, readNetwork, sizeOf, slopeOf, windows } from './js-network.mjs'
import { serve } from './js-protocol.mjs'

const RATE = 1e-3
const [BETA_1, BETA_2] = [0.9, 0.999]
const EPSILON = 1e-7

// An array is freed once it was read as often as it was referred to: `x.ref` is one more reference to x.
const share = x => x.ref

function activate(x, activation) {
  switch (activation?.activation ?? activation) {
    case 'relu':
      return nn.relu(x)
    case 'tanh':
      return np.tanh(x)
    case 'leakyRelu':
      return nn.leakyRelu(x, slopeOf(activation))
    default:
      return x
  }
}

/** For each tap of the windows on x [N, H, W, C]: the cells under it [N, H', W', C]. */
function taps(x, { kernelSize, strides: [down, right] }, { out, pads }) {
  const [height, width] = out
  const [rows, columns] = kernelSize
  // Whole strides, as many as the last tap needs.
  const extents = [
    down * (height + Math.floor((rows - 1) / down)),
    right * (width + Math.floor((columns - 1) / right)),
  ]
  const around = pads.map(([before, after], axis) => {
    const missing = extents[axis] - (x.shape[axis + 1] + before + after)
    return [before, after + Math.max(0, missing)]
  })
  let padded = around.flat().some(count => count > 0) ? np.pad(x, [[0, 0], ...around, [0, 0]]) : x
  const [n, , , channels] = padded.shape
  const strided = down > 1 || right > 1
  if (strided) {
    const cut = padded.slice([], [0, extents[0]], [0, extents[1]], [])
    padded = cut.reshape([n, extents[0] / down, down, extents[1] / right, right, channels])
  }
  const cells = []
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      const last = cells.length === rows * columns - 1
      const from = last ? padded : padded.ref
      if (strided) {
        const [a, b] = [Math.floor(i / down), Math.floor(j / right)]
        const block = from.slice(
          [],
          [a, a + height],
          [i % down, (i % down) + 1],
          [b, b + width],
          [j % right, (j % right) + 1],
          [],
        )
        cells.push(block.reshape([n, height, width, channels]))
      } else cells.push(from.slice([], [i, i + height], [j, j + width], []))
    }
  return cells
}

const sum = arrays => arrays.reduce((a, b) => a.add(b))

/** Of x [N, H, W, C] and kernel [kH, kW, C, F]. */
function convolution(x, kernel, layer, window) {
  const n = x.shape[0]
  const filters = kernel.shape[3]
  const cells = taps(x, layer, window)
  const joined = cells.length === 1 ? cells[0] : np.concatenate(cells, 3)
  const inputs = joined.reshape([-1, sizeOf(kernel.shape) / filters])
  return np.matmul(inputs, kernel.reshape([-1, filters])).reshape([n, ...window.out, filters])
}

/** Zeros over the map and a very low number around it, [1, H', W', 1]: padding never is the maximum. */
function lowBorder([height, width], [rows, columns]) {
  const shape = [1, rows[0] + height + rows[1], columns[0] + width + columns[1], 1]
  const values = new Float32Array(sizeOf(shape)).fill(-1e30)
  for (let i = 0; i < height; i++) {
    const from = (rows[0] + i) * shape[2] + columns[0]
    values.fill(0, from, from + width)
  }
  return np.array(values, { shape })
}

/**
 * What each kind of layer computes. `weight(use, part)` is an array to read once; `moved(use, part, value)`
 * takes a buffer's next value.
 */
function layerFunctions(weight, moved, training) {
  const affine = (x, use) =>
    activate(use.layer.useBias ? x.add(weight(use, 'bias')) : x, use.layer.activation)

  return {
    rescaling: ([x], { layer }) => x.mul(layer.scale).add(layer.offset),
    activation: ([x], { layer }) => activate(x, layer.activation),
    flatten: ([x], { shape }) => x.reshape([-1, ...shape]),
    add: sum,
    globalAveragePooling2d: ([x]) => np.mean(x, [1, 2]),
    dense: ([x], use) => affine(np.matmul(x, weight(use, 'kernel')), use),
    sparseDense: ([x], use) => affine(np.matmul(x, weight(use, 'kernel').mul(weight(use, 'mask'))), use),
    conv2d: ([x], use) =>
      affine(convolution(x, weight(use, 'kernel'), use.layer, windows(use.from, use.layer)), use),
    separableConv2d([x], use) {
      const { layer, from } = use
      const kernel = weight(use, 'depthwiseKernel').reshape([-1, from[2]])
      const cells = taps(x, layer, windows(from, layer))
      const maps = sum(
        cells.map((cell, tap) => cell.mul((tap === cells.length - 1 ? kernel : kernel.ref).slice(tap))),
      )
      const point = { kernelSize: [1, 1], strides: [1, 1] }
      const unpadded = { out: use.shape.slice(0, 2), pads: [0, 0].map(() => [0, 0]) }
      return affine(convolution(maps, weight(use, 'pointwiseKernel'), point, unpadded), use)
    },
    maxPooling2d([x], { layer, from }) {
      const { out, pads } = windows(from, layer)
      if (!pads.flat().some(count => count > 0))
        return taps(x, layer, { out, pads }).reduce((a, b) => np.maximum(a, b))
      const padded = np.pad(x, [[0, 0], ...pads, [0, 0]]).add(lowBorder(from, pads))
      const none = pads.map(() => [0, 0])
      return taps(padded, layer, { out, pads: none }).reduce((a, b) => np.maximum(a, b))
    },
    averagePooling2d([x], { layer, from }) {
      const cells = taps(x, layer, windows(from, layer))
      return sum(cells).mul(1 / cells.length)
    },
    zeroPadding2d: ([x], { layer }) => np.pad(x, [[0, 0], ...layer.padding, [0, 0]]),
    channelPadding: ([x], { layer, from }) =>
      np.pad(x, [
        [0, 0],
        [0, 0],
        [0, 0],
        [0, layer.channels - from[2]],
      ]),
    lateralInhibition([x], { layer, from }) {
      const { taps: weights, centre, surround } = inhibition(layer)
      const side = weights.length
      const strides = [1, 1]
      const blurred = (x, kernelSize) => {
        const window = windows(from, { kernelSize, strides, padding: 'same', dilationRate: [1, 1] })
        return sum(taps(x, { kernelSize, strides }, window).map((cell, tap) => cell.mul(weights[tap])))
      }
      return blurred(blurred(x.ref, [side, 1]), [1, side])
        .mul(surround)
        .add(x.mul(centre))
    },
    pixelAttention([x], use) {
      const [height, width, channels] = use.from
      const tokens = x.ref.reshape([-1, channels])
      const [query, key, value] = ['query', 'key', 'value'].map((part, i) => {
        const kernel = weight(use, part)
        const units = kernel.shape[1]
        return np.matmul(i === 2 ? tokens : tokens.ref, kernel).reshape([-1, height * width, units])
      })
      const scale = query.shape[2] ** -0.5
      const weights = nn.softmax(np.matmul(query.mul(scale), np.transpose(key, [0, 2, 1])), -1)
      return x.add(np.matmul(weights, value).reshape([-1, height, width, channels]))
    },
    batchNormalization([x], use) {
      const { momentum, epsilon } = use.layer
      const [mean, variance] = [weight(use, 'movingMean'), weight(use, 'movingVariance')]
      if (!training) {
        const factor = weight(use, 'gamma').mul(reciprocalRoot(variance, epsilon))
        const offset = weight(use, 'beta').sub(mean.mul(factor.ref))
        return x.mul(factor).add(offset)
      }
      const { shape } = x
      const flat = x.reshape([-1, shape.at(-1)])
      const batchMean = np.mean(flat.ref, 0)
      const centred = flat.sub(batchMean.ref)
      const batchVariance = np.mean(np.square(centred.ref), 0)
      const move = (part, average, value) =>
        moved(use, part, average.mul(momentum).add(lax.stopGradient(value).mul(1 - momentum)))
      move('movingMean', mean, batchMean)
      move('movingVariance', variance, batchVariance.ref)
      const factor = weight(use, 'gamma').mul(reciprocalRoot(batchVariance, epsilon))
      return centred.mul(factor).add(weight(use, 'beta')).reshape(shape)
    },
  }
}

const reciprocalRoot = (x, epsilon) => np.reciprocal(np.sqrt(x.add(epsilon)))

/** The loss, the logits, and in training the next averages. Reads its arrays, which are in the network's order. */
function evaluation(network, training, [parameters, averages, masks], x, labels) {
  const names = [network.parameters, network.averages, network.masks].flat().map(({ name }) => name)
  const arrays = new Map([...parameters, ...averages, ...masks].map((array, i) => [names[i], array]))
  const next = new Map()
  const weight = ({ name }, part) => arrays.get(`${name}/${part}`).ref
  const moved = ({ name }, part, value) => next.set(`${name}/${part}`, value)
  const logits = forward(network, x, layerFunctions(weight, moved, training), share)
  const crossEntropy = np.sum(nn.logSoftmax(logits.ref, -1).mul(labels)).mul(-1 / logits.shape[0])
  const loss = network.parameters.reduce(
    (total, { name, l2 }) => (l2 === 0 ? total : total.add(np.sum(np.square(arrays.get(name).ref)).mul(l2))),
    crossEntropy,
  )
  for (const array of arrays.values()) array.dispose()
  return { loss, logits, next: training ? network.averages.map(({ name }) => next.get(name)) : [] }
}

async function begin({ model, seed, batch, shape, classes }) {
  const network = readNetwork(model, seed)
  const arraysOf = (list, values = ({ values }) => values) =>
    list.map(each => np.array(values(each), { shape: each.shape }))
  const zeros = ({ values }) => new Float32Array(values.length)
  let state = {
    parameters: arraysOf(network.parameters),
    first: arraysOf(network.parameters, zeros),
    second: arraysOf(network.parameters, zeros),
    averages: arraysOf(network.averages),
  }
  const masks = arraysOf(network.masks)

  const gradients = valueAndGrad(
    (parameters, averages, masks, x, labels) => {
      const { loss, logits, next } = evaluation(network, true, [parameters, averages, masks], x, labels)
      logits.dispose()
      return [loss, next]
    },
    { hasAux: true },
  )
  const update = jit(
    ({ parameters, first, second, averages }, masks, x, labels, correction1, correction2) => {
      const [[loss, moved], slopes] = gradients(parameters.map(share), averages, masks, x, labels)
      const next = { parameters: [], first: [], second: [], averages: moved }
      for (const [i, slope] of slopes.entries()) {
        const m = first[i].mul(BETA_1).add(slope.ref.mul(1 - BETA_1))
        const v = second[i].mul(BETA_2).add(np.square(slope).mul(1 - BETA_2))
        const deviation = np.sqrt(v.ref.mul(correction2.ref)).add(EPSILON)
        next.parameters.push(parameters[i].sub(m.ref.mul(correction1.ref).mul(RATE).div(deviation)))
        next.first.push(m)
        next.second.push(v)
      }
      for (const correction of [correction1, correction2]) correction.dispose()
      return [next, loss]
    },
  )
  const evaluate = jit((parameters, averages, masks, x, labels) => {
    const { loss, logits } = evaluation(network, false, [parameters, averages, masks], x, labels)
    return [loss, logits]
  })

  const inputs = (images, oneHot) => [
    np.array(images, { shape: [batch, ...shape.slice(1)] }),
    np.array(oneHot, { shape: [batch, classes] }),
  ]
  let steps = 0
  let last
  return {
    parameters: network.count,
    async step(images, oneHot) {
      steps++
      last?.dispose()
      const corrections = [BETA_1, BETA_2].map(beta => np.array(1 / (1 - beta ** steps)))
      ;[state, last] = update(state, tree.ref(masks), ...inputs(images, oneHot), ...corrections)
      // Operations wait in a queue until something asks for their results.
      await blockUntilReady(state)
    },
    settle: () => last.ref.jsAsync(),
    async evaluate(images, oneHot) {
      const { parameters, averages } = state
      const weights = [parameters, averages, masks].map(arrays => tree.ref(arrays))
      const [loss, logits] = evaluate(...weights, ...inputs(images, oneHot))
      return { loss: await loss.jsAsync(), logits: await logits.data() }
    },
    end() {
      last?.dispose()
      tree.dispose([state, masks])
      update.dispose()
      evaluate.dispose()
    },
  }
}

await init('wasm')
defaultDevice('wasm')
// The package exports neither its version nor its package.json.
const manifest = new URL('../package.json', import.meta.resolve('@jax-js/jax'))
const { version } = JSON.parse(await readFile(manifest, 'utf8'))
await serve({ peer: 'jax-js', version, begin })
