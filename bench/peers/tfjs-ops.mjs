/**
 * The few operations of TensorFlow.js that its peer computes in its own words, as compositions of the
 * library's public ones with `tf.customGrad` (one calls its kernel by name), and why:
 *
 * - its WASM back end has no kernels for the gradients of a convolution's filter (Conv2DBackpropFilter) and
 *   of a depthwise convolution (DepthwiseConv2dNativeBackpropFilter, DepthwiseConv2dNativeBackpropInput), so
 *   that stock code trains no convolution there at all;
 * - its CPU back end has them, in loops some 50 times slower for a multiply-add than its convolution forward;
 * - on WASM, matMul runs on XNNPACK only where nothing is transposed and the batch is one matrix, else in plain
 *   loops that are 4 to 15 times slower, and a matMul's stock gradient transposes;
 * - on WASM, MaxPoolGrad gives no gradient where a window's maximum is negative (it starts from the smallest
 *   positive number, not the lowest): a network that pools after tanh or batch norm would train wrongly;
 * - on WASM, a sum over rows is 15 times slower than the product with a row of ones;
 * - the stock gradient of batchNorm makes several times as many passes as the closed form.
 */
import * as tf from '@tensorflow/tfjs'

/** The sum of each column of x [M, C]: [C]. */
const columnSums = x => tf.reshape(tf.matMul(tf.ones([1, x.shape[0]]), x), [x.shape[1]])
const rows = x => tf.reshape(x, [-1, x.shape.at(-1)])

/** x + b for b [C], whatever the rank of x. */
export const addBias = tf.customGrad((x, bias, save) => {
  save([])
  return { value: tf.add(x, bias), gradFunc: dy => [dy, columnSums(rows(dy))] }
})

/**
 * Batch normalization by the batch's own statistics. `moments` receives mean and (biased) variance [C] on the
 * way.
 */
export function batchNormalization(x, gamma, beta, epsilon, moments) {
  return tf.customGrad((x, gamma, beta, save) => {
    const flat = rows(x)
    const count = flat.shape[0]
    const mean = tf.div(columnSums(flat), count)
    const centred = tf.sub(flat, mean)
    const variance = tf.div(columnSums(tf.square(centred)), count)
    moments(mean, variance)
    const factor = tf.rsqrt(tf.add(variance, epsilon))
    const standardized = tf.mul(centred, factor)
    save([standardized, factor, gamma])
    return {
      value: tf.reshape(tf.add(tf.mul(standardized, gamma), beta), x.shape),
      gradFunc(dy, [standardized, factor, gamma]) {
        const flat = rows(dy)
        const dBeta = columnSums(flat)
        const dGamma = columnSums(tf.mul(flat, standardized))
        // dx = gamma factor (dy - mean(dy) - standardized mean(dy standardized))
        const centred = tf.sub(
          flat,
          tf.add(tf.mul(standardized, tf.div(dGamma, count)), tf.div(dBeta, count)),
        )
        return [tf.reshape(tf.mul(centred, tf.mul(gamma, factor)), dy.shape), dGamma, dBeta]
      },
    }
  })(x, gamma, beta)
}

export const aroundMaps = ([rows, columns]) => [[0, 0], rows, columns, [0, 0]]

/** What the library has, with gradients by matMul, conv2d and slices. */
const composed = {
  /** a [M, K] by b [K, N], or a stack of them. */
  matMul: (a, b) =>
    tf.customGrad((a, b, save) => {
      save([a, b])
      return {
        value: product(a, b),
        gradFunc: (dy, [a, b]) => [product(dy, transposed(b)), product(transposed(a), dy)],
      }
    })(a, b),

  /** `inputs`: whether x needs a gradient. */
  conv2d(x, kernel, { strides, pads }, inputs) {
    const forward = (x, kernel, save) => {
      save([x, kernel])
      return tf.conv2d(x, kernel, strides, aroundMaps(pads))
    }
    const shape = [x.shape, kernel.shape]
    if (!inputs)
      return tf.customGrad((kernel, save) => ({
        value: forward(x, kernel, save),
        gradFunc: (dy, [x]) => kernelGradient(dy, x, shape[1], strides, pads),
      }))(kernel)
    return tf.customGrad((x, kernel, save) => ({
      value: forward(x, kernel, save),
      gradFunc: (dy, [x, kernel]) => [
        inputGradient(dy, tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2]), shape[0], strides, pads),
        kernelGradient(dy, x, shape[1], strides, pads),
      ],
    }))(x, kernel)
  },

  /** Strides of 1; kernel [kH, kW, C, 1]. A kernel that is not trained gets no gradient. */
  depthwise(x, kernel, { pads }, trained = true) {
    const { shape } = x
    const forward = (x, kernel, save) => {
      save([x, kernel])
      return tf.depthwiseConv2d(x, kernel, 1, aroundMaps(pads))
    }
    const inputs = (dy, kernel) =>
      tf.depthwiseConv2d(
        dy,
        tf.reverse(kernel, [0, 1]),
        1,
        aroundMaps(opposite(dy, kernel.shape, shape, pads)),
      )
    if (!trained)
      return tf.customGrad((x, save) => ({
        value: forward(x, kernel, save),
        gradFunc: (dy, [, kernel]) => inputs(dy, kernel),
      }))(x)
    return tf.customGrad((x, kernel, save) => ({
      value: forward(x, kernel, save),
      gradFunc(dy, [x, kernel]) {
        const padded = tf.pad(x, aroundMaps(pads))
        const sums = eachTap(kernel.shape, (i, j) =>
          columnSums(rows(tf.mul(tf.slice(padded, [0, i, j, 0], dy.shape), dy))),
        )
        return [inputs(dy, kernel), tf.reshape(tf.stack(sums), kernel.shape)]
      },
    }))(x, kernel)
  },

  maxPool: (x, { kernelSize, strides, padding }) =>
    tf.customGrad((x, save) => {
      const value = tf.maxPool(x, kernelSize, strides, padding)
      save([x, value])
      return {
        value,
        gradFunc(dy, [input, output]) {
          const positive = tf.add(tf.sub(input, tf.min(input)), 1)
          const attributes = { filterSize: kernelSize, strides, pad: padding }
          return tf.engine().runKernel('MaxPoolGrad', { dy, input: positive, output }, attributes)
        },
      }
    })(x),
}

/** The CPU back end's own matMul and maxPool have none of the WASM back end's faults. */
const stock = {
  matMul: (a, b) => tf.matMul(a, b),
  maxPool: (x, { kernelSize, strides, padding }) => tf.maxPool(x, kernelSize, strides, padding),
}

/** By back end. */
export const operations = { wasm: composed, cpu: { ...composed, ...stock } }

/** a by b, one matrix after the other. */
function product(a, b) {
  if (a.shape.length === 2) return tf.matMul(a, b)
  const one = (x, i) => tf.reshape(tf.slice(x, [i, 0, 0], [1, -1, -1]), x.shape.slice(1))
  return tf.stack(Array.from({ length: a.shape[0] }, (_, i) => tf.matMul(one(a, i), one(b, i))))
}

const transposed = x => tf.transpose(x, x.shape.length === 2 ? [1, 0] : [0, 2, 1])

const eachTap = ([height, width], value) =>
  Array.from({ length: height * width }, (_, tap) => value(Math.floor(tap / width), tap % width))

/** For each tap of a kernel [kH, kW, C, F]: the inputs under it [C, N H' W'] times dy [N H' W', F]. */
function kernelGradient(dy, x, shape, [down, right], pads) {
  const [n, height, width] = dy.shape
  const outward = tf.transpose(tf.pad(x, aroundMaps(pads)), [3, 0, 1, 2]) // [C, N, H, W]
  const values = rows(dy)
  const taps = eachTap(shape, (i, j) => {
    const under =
      down === 1 && right === 1
        ? tf.slice(outward, [0, 0, i, j], [shape[2], n, height, width])
        : tf.stridedSlice(
            outward,
            [0, 0, i, j],
            [shape[2], n, i + (height - 1) * down + 1, j + (width - 1) * right + 1],
            [1, 1, down, right],
          )
    return tf.matMul(tf.reshape(under, [shape[2], n * height * width]), values)
  })
  return tf.reshape(tf.stack(taps), shape)
}

/** dy with zeros between its cells, convolved with the kernel that is flipped already [kH, kW, F, C]. */
function inputGradient(dy, flipped, shape, [down, right], pads) {
  const spread = spreadOut(dy, down, right)
  const around = opposite(spread, flipped.shape, shape, pads)
  // Cells that no window reached: fewer zeros behind than the spreading put there.
  const [height, width] = [1, 2].map(axis => spread.shape[axis] + Math.min(0, around[axis - 1][1]))
  const fitted = tf.slice(spread, [0, 0, 0, 0], [dy.shape[0], height, width, dy.shape[3]])
  const zeros = around.map(([before, after]) => [before, Math.max(0, after)])
  return tf.conv2d(fitted, flipped, 1, aroundMaps(zeros))
}

/** Padding of a gradient's convolution. */
function opposite(dy, kernel, shape, pads) {
  return [0, 1].map(axis => {
    const before = kernel[axis] - 1 - pads[axis][0]
    return [before, shape[axis + 1] + kernel[axis] - 1 - dy.shape[axis + 1] - before]
  })
}

/** `down - 1` rows and `right - 1` columns of zeros behind each. */
function spreadOut(dy, down, right) {
  if (down === 1 && right === 1) return dy
  const [n, height, width, channels] = dy.shape
  const cells = tf.reshape(dy, [n * height, 1, width, channels])
  const padded = tf.pad(cells, [
    [0, 0],
    [0, down - 1],
    [0, 0],
    [0, (right - 1) * channels],
  ])
  return tf.reshape(padded, [n, height * down, width * right, channels])
}
