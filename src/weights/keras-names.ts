/** The names that Keras, from its first version on, gives to layers and to their tensors. */

/** Keras's names of classes, as it writes them in automatic names, and Fovea's kinds. */
const kinds: Readonly<Record<string, string>> = {
  dense: 'dense',
  conv2d: 'conv2d',
  depthwise_conv2d: 'depthwiseConv2d',
  separable_conv2d: 'separableConv2d',
  batch_normalization: 'batchNormalization',
  layer_normalization: 'layerNormalization',
  // Keras 1, which wrote some of the published files.
  convolution2d: 'conv2d',
  separableconvolution2d: 'separableConv2d',
  batchnormalization: 'batchNormalization',
}

/** Parts of an automatic name: `conv2d_3` is the layer of the kind `conv2d` with the number 3. */
export interface AutomaticName {
  readonly kind: string
  readonly number: number
}

/** What an automatic name says; undefined where a person chose the name, or Fovea has no such layer. */
export function automaticName(name: string): AutomaticName | undefined {
  const [, word, number] = /^(.*?)(?:_(\d+))?$/.exec(name)!
  const kind = Object.hasOwn(kinds, word!) ? kinds[word!] : undefined
  return kind === undefined ? undefined : { kind, number: Number(number ?? 0) }
}

const roles: Readonly<Record<string, string>> = {
  kernel: 'kernel',
  bias: 'bias',
  depthwise_kernel: 'depthwiseKernel',
  pointwise_kernel: 'pointwiseKernel',
  gamma: 'gamma',
  beta: 'beta',
  moving_mean: 'movingMean',
  moving_variance: 'movingVariance',
  // Keras 1; its "std" holds variances.
  W: 'kernel',
  b: 'bias',
  running_mean: 'movingMean',
  running_std: 'movingVariance',
}
const rolePattern = new RegExp(`(?:^|_)(${Object.keys(roles).join('|')})(?:_\\d+)?$`)

/**
 * Fovea's word for a tensor: `kernel` for `block1_conv1/kernel:0` and `block1_conv1_W_1:0`; undefined where
 * it has none.
 */
export function roleOf(name: string): string | undefined {
  const match = rolePattern.exec(name.replace(/:\d+$/, '').split('/').at(-1)!)
  return match ? roles[match[1]!] : undefined
}

/** `SeparableConv2D` to `separable_conv2d`, as Keras does it. */
export function snakeCase(className: string): string {
  return className
    .replace(/\W+/g, '')
    .replace(/(.)([A-Z][a-z]+)/g, '$1_$2')
    .replace(/([a-z])([A-Z])/g, '$1_$2')
    .toLowerCase()
}
