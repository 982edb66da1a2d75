/**
 * Fovea's description of a network, read for the JavaScript peers: shapes, first values, and options that are
 * all known. What a layer computes is each peer's own.
 */

/** Uniform numbers in [0, 1): mulberry32. */
export function generator(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

export const sizeOf = shape => shape.reduce((a, b) => a * b, 1)

const KERNEL = ['activation', 'useBias', 'kernelInitializer', 'biasInitializer', 'kernelRegularizer']
const WINDOW = ['kernelSize', 'strides', 'padding', 'dilationRate']

/**
 * By kind: the options that are understood, and `shape`, which declares what is trained and returns the shape
 * of one image's output. `weights` declares; `x` is the shape of one image's input.
 */
const kinds = {
  rescaling: { options: ['scale', 'offset'], shape: ({ x }) => x },
  activation: { options: ['activation'], shape: ({ x, layer }) => known(layer.activation) && x },
  flatten: { options: [], shape: ({ x }) => [sizeOf(x)] },
  add: { options: [], shape: ({ x }) => x },
  globalAveragePooling2d: { options: [], shape: ({ x }) => [x[2]] },
  dense: { options: ['units', ...KERNEL], shape: dense },
  sparseDense: { options: ['units', 'connectivity', ...KERNEL], shape: dense },
  conv2d: {
    options: ['filters', 'groups', ...WINDOW, ...KERNEL],
    shape({ x, layer, weights }) {
      only(layer, 'groups', 1)
      const out = [...windows(x, layer).out, layer.filters]
      weights.kernel([...layer.kernelSize, x[2], layer.filters], layer)
      bias(layer.filters, layer, weights)
      return out
    },
  },
  separableConv2d: {
    options: ['filters', 'depthMultiplier', ...WINDOW, ...KERNEL],
    shape({ x, layer, weights }) {
      only(layer, 'depthMultiplier', 1)
      const out = [...windows(x, layer).out, layer.filters]
      weights.kernel([...layer.kernelSize, x[2], 1], layer, 'depthwiseKernel')
      weights.kernel([1, 1, x[2], layer.filters], layer, 'pointwiseKernel')
      bias(layer.filters, layer, weights)
      return out
    },
  },
  maxPooling2d: { options: WINDOW, shape: ({ x, layer }) => [...windows(x, layer).out, x[2]] },
  averagePooling2d: {
    options: WINDOW,
    shape({ x, layer }) {
      // Padding would not count in the mean, and no network here needs it.
      only(layer, 'padding', 'valid')
      return [...windows(x, layer).out, x[2]]
    },
  },
  zeroPadding2d: {
    options: ['padding'],
    shape: ({ x: [h, w, c], layer: { padding } }) => [
      h + padding[0][0] + padding[0][1],
      w + padding[1][0] + padding[1][1],
      c,
    ],
  },
  channelPadding: { options: ['channels'], shape: ({ x: [h, w], layer }) => [h, w, layer.channels] },
  lateralInhibition: {
    options: ['radius', 'sigma', 'strength', 'learned'],
    shape({ x, layer }) {
      only(layer, 'learned', false)
      return x
    },
  },
  pixelAttention: {
    options: ['keyDim', 'kernelInitializer', 'valueInitializer'],
    shape({ x, layer, weights }) {
      const channels = x[2]
      for (const name of ['query', 'key']) weights.kernel([channels, layer.keyDim ?? channels], layer, name)
      const kernelInitializer = layer.valueInitializer ?? layer.kernelInitializer
      weights.kernel([channels, channels], { kernelInitializer }, 'value')
      return x
    },
  },
  batchNormalization: {
    options: ['momentum', 'epsilon', 'center', 'scale'],
    shape({ x, layer, weights }) {
      only(layer, 'center', true)
      only(layer, 'scale', true)
      const shape = [x.at(-1)]
      weights.filled('gamma', shape, 1)
      weights.filled('beta', shape, 0)
      weights.average('movingMean', shape, new Float32Array(shape[0]))
      weights.average('movingVariance', shape, new Float32Array(shape[0]).fill(1))
      return x
    },
  },
}

function dense({ x, layer, weights }) {
  if (x.length !== 1) throw new Error(`expected vectors, received maps [${x}]`)
  const shape = [x[0], layer.units]
  known(layer.activation)
  if (layer.layer === 'sparseDense') {
    const { density } = layer.connectivity
    only(layer.connectivity, 'connectivity', 'bernoulli')
    weights.kernel(shape, layer, 'kernel', density)
    weights.mask(shape, density)
  } else weights.kernel(shape, layer)
  bias(layer.units, layer, weights)
  return [layer.units]
}

function bias(units, { useBias, biasInitializer }, weights) {
  if (!useBias) return
  only(biasInitializer, 'initializer', 'zeros')
  weights.filled('bias', [units], 0)
}

function only(options, name, expected) {
  if (options[name] !== expected)
    throw new Error(
      `${name}: expected ${JSON.stringify(expected)}, received ${JSON.stringify(options[name])}`,
    )
}

function known(activation) {
  const name = activation?.activation ?? activation
  if (!['linear', 'relu', 'tanh', 'leakyRelu'].includes(name))
    throw new Error(`activation: expected linear, relu, tanh or leakyRelu, received ${JSON.stringify(name)}`)
  return true
}

/** Slope of a leakyRelu; by name alone it has Keras's. */
export const slopeOf = activation => activation.slope ?? 0.2

/**
 * Where windows lie on a map: `out` [H', W'] and `pads` [[above, below], [left, right]], TensorFlow's "same"
 * and "valid".
 */
export function windows([...x], { kernelSize, strides, padding, dilationRate }) {
  if (dilationRate.some(rate => rate !== 1))
    throw new Error(`dilationRate: expected [1,1], received [${dilationRate}]`)
  if (padding !== 'same' && padding !== 'valid')
    throw new Error(`padding: expected "same" or "valid", received "${padding}"`)
  const out = []
  const pads = []
  for (const axis of [0, 1]) {
    const [extent, kernel, stride] = [x[axis], kernelSize[axis], strides[axis]]
    const count = padding === 'same' ? Math.ceil(extent / stride) : Math.floor((extent - kernel) / stride) + 1
    const missing = padding === 'same' ? Math.max((count - 1) * stride + kernel - extent, 0) : 0
    out.push(count)
    pads.push([Math.floor(missing / 2), Math.ceil(missing / 2)])
  }
  return { out, pads }
}

/** First values of a kernel; `density` is the share of its connections that a mask keeps. */
function initialValues({ initializer, ...rest }, shape, random, density) {
  if (Object.keys(rest).length > 0 || !['glorotUniform', 'heNormal', 'zeros'].includes(initializer))
    throw new Error(
      `initializer: expected glorotUniform, heNormal or zeros, received ${JSON.stringify(initializer)}`,
    )
  const field = sizeOf(shape.slice(0, -2)) * density
  const [fanIn, fanOut] = shape.slice(-2).map(extent => extent * field)
  const values = new Float32Array(sizeOf(shape))
  if (initializer === 'zeros') return values
  if (initializer === 'glorotUniform') {
    const limit = Math.sqrt(6 / (fanIn + fanOut))
    for (let i = 0; i < values.length; i++) values[i] = limit * (2 * random() - 1)
  } else {
    // A normal that is cut at two deviations, of variance 2 / fanIn after the cut.
    const deviation = Math.sqrt(2 / fanIn) / 0.87962566103423978
    for (let i = 0; i < values.length; i++) {
      let z
      do z = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
      while (Math.abs(z) > 2)
      values[i] = deviation * z
    }
  }
  return values
}

/**
 * A description, read: its layers in order of computation with the shapes of one image's input and output;
 * and its parameters, the moving averages of batch norm, and the masks of sparse layers, each with name,
 * shape and first values.
 *
 * @throws Error for a kind, an option or a value of one that is not known, which it names
 */
export function readNetwork(model, seed) {
  const random = generator(seed)
  const parameters = []
  const averages = []
  const masks = []
  const shapes = new Map([['input', [...model.input]]])
  const layers = model.layers.map(({ name, layer, inputs }) => {
    const kind = kinds[layer.layer]
    if (!kind) throw new Error(`layer "${name}": the kind ${layer.layer} is not known`)
    for (const option of Object.keys(layer))
      if (!['layer', 'name', ...kind.options].includes(option))
        throw new Error(`layer "${name}": the option ${option} of ${layer.layer} is not known`)
    const sources = inputs.map(input => shapes.get(input))
    if (layer.layer !== 'add' && sources.length !== 1)
      throw new Error(`layer "${name}": expected one input, received ${sources.length}`)
    const weights = {
      kernel(shape, options, part = 'kernel', density = 1) {
        const { l1 = 0, l2 = 0, ...rest } = options.kernelRegularizer ?? {}
        if (l1 !== 0 || Object.keys(rest).length > 0)
          throw new Error(
            `kernelRegularizer: expected l2, received ${JSON.stringify(options.kernelRegularizer)}`,
          )
        const values = initialValues(options.kernelInitializer, shape, random, density)
        parameters.push({ name: `${name}/${part}`, shape, values, l2 })
      },
      filled(part, shape, value) {
        const values = new Float32Array(sizeOf(shape)).fill(value)
        parameters.push({ name: `${name}/${part}`, shape, values, l2: 0 })
      },
      average: (part, shape, values) => averages.push({ name: `${name}/${part}`, shape, values }),
      mask(shape, density) {
        const values = Float32Array.from({ length: sizeOf(shape) }, () => (random() < density ? 1 : 0))
        masks.push({ name: `${name}/mask`, shape, values })
      },
    }
    try {
      const shape = kind.shape({ x: sources[0], layer, weights })
      shapes.set(name, shape)
      return { name, layer, inputs, from: sources[0], shape }
    } catch (error) {
      throw new Error(`layer "${name}": ${error.message}`)
    }
  })
  const count = parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  return { layers, output: model.output, parameters, averages, masks, count }
}

/**
 * Runs the layers in order. `compute` has a function for each kind: (inputs, use) => output. Where a library
 * counts references, `share` makes another of a value that has more readers to come; the last reader gets the
 * value itself.
 */
export function forward({ layers, output }, images, compute, share = value => value) {
  const readers = new Map()
  for (const name of [...layers.flatMap(({ inputs }) => inputs), output])
    readers.set(name, (readers.get(name) ?? 0) + 1)
  const values = new Map([['input', images]])
  const read = name => {
    readers.set(name, readers.get(name) - 1)
    return readers.get(name) > 0 ? share(values.get(name)) : values.get(name)
  }
  for (const use of layers) values.set(use.name, compute[use.layer.layer](use.inputs.map(read), use))
  return read(output)
}

/** Gaussian weights over -radius..radius, of sum 1. */
function gaussian({ radius, sigma }) {
  const taps = Array.from({ length: 2 * radius + 1 }, (_, i) =>
    Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)),
  )
  const sum = taps.reduce((a, b) => a + b)
  return taps.map(tap => tap / sum)
}

/**
 * y = x - s (G * x), G without its centre and of sum 1, as a separable filter: with B the Gaussian of sum 1
 * and b its centre, y = centre x + surround (B * x). `taps` are those of B along one axis.
 */
export function inhibition(layer) {
  const taps = gaussian(layer)
  const b = taps[layer.radius] ** 2
  return { taps, centre: 1 + (layer.strength * b) / (1 - b), surround: -layer.strength / (1 - b) }
}
