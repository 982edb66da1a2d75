/** Augmentations as data: how training images are changed at random, each image by draws of its own. */
import { checkInteger, checkRange, UsageError, unknownName } from '../../util/errors.ts'
import type { HostTensor } from '../../util/host-tensor.ts'
import { checkPositive } from '../options.ts'

/** What stands in the place of pixels beyond a crop's border. */
export const cropModes = ['zeros', 'reflect'] as const
export type CropMode = (typeof cropModes)[number]

/** What {@link cutout} puts in the place of what it hides: a value 0 to 255 for each channel. */
export type Fill = 'mean' | readonly number[]

export type Augmentation = Readonly<
  | { augmentation: 'crop'; padding: number; mode: CropMode }
  | { augmentation: 'flip'; probability: number }
  | { augmentation: 'cutout'; size: number; fill: Fill }
  | { augmentation: 'rotate'; degrees: number }
  | { augmentation: 'noise'; deviation: number }
  | { augmentation: 'brightness'; range: number }
  | { augmentation: 'contrast'; range: number }
>

export type AugmentationName = Augmentation['augmentation']

/**
 * A window of the image's own size at a random place of the image with `padding` more pixels on each side:
 * each of the (2 padding + 1)^2 places is equally likely. He et al. 2016, arXiv 1512.03385, with padding 4 on
 * CIFAR-10.
 *
 * @param options.mode what lies beyond the border: `'zeros'` (the default), or `'reflect'`, the image
 *   mirrored at its outermost pixels
 * @throws UsageError where padding is no whole number of at least 1
 */
export function randomCrop({ padding, mode = 'zeros' }: { padding: number; mode?: CropMode }) {
  checkInteger('crop', 'padding', padding, 1)
  if (!cropModes.includes(mode)) throw unknownName('mode of crop', String(mode), cropModes)
  return described({ augmentation: 'crop', padding, mode })
}

/** Left and right change places, with `probability` (default 0.5). */
export function randomFlip({ probability = 0.5 }: { probability?: number } = {}) {
  checkRange('flip', 'probability', probability, 0, 1)
  return described({ augmentation: 'flip', probability })
}

/**
 * Hides a square of `size` x `size` pixels around a random pixel; near the border it reaches beyond, and less
 * is hidden. DeVries and Taylor 2017, arXiv 1708.04552: there images are normalized first and the square is
 * 0, which is the mean of the training images. Here too: `fill` is `'mean'` by default, which `trainingSpec`
 * replaces by that mean.
 *
 * @throws UsageError where size is no whole number of at least 1, or a fill is not within 0 to 255
 */
export function cutout({ size, fill = 'mean' }: { size: number; fill?: Fill }) {
  checkInteger('cutout', 'size', size, 1)
  if (fill !== 'mean') for (const value of fill) checkRange('cutout', 'fill', value, 0, 255)
  return described({ augmentation: 'cutout', size, fill })
}

/**
 * Turns the image about its centre by an angle uniform within plus and minus `degrees`. Pixels are read
 * between the centres of their neighbours (bilinear), and are 0 outside the image.
 *
 * @throws UsageError where degrees are not above 0 and at most 180
 */
export function randomRotation({ degrees }: { degrees: number }) {
  checkAmount('rotate', 'degrees', degrees, 180)
  return described({ augmentation: 'rotate', degrees })
}

/**
 * Adds normal noise to each value, of the standard deviation 255 `deviation`. Values are not clipped: that
 * would change the mean of dark and of light images.
 */
export function randomNoise({ deviation }: { deviation: number }) {
  checkAmount('noise', 'deviation', deviation, 1)
  return described({ augmentation: 'noise', deviation })
}

/** Adds one number, uniform within plus and minus 255 `range`, to an image's values. They are not clipped. */
export function randomBrightness({ range }: { range: number }) {
  checkAmount('brightness', 'range', range, 1)
  return described({ augmentation: 'brightness', range })
}

/**
 * Multiplies the distances of an image's values from the mean of their channel by one number, uniform within
 * 1 - `range` and 1 + `range`, as Keras's RandomContrast. Values are not clipped.
 */
export function randomContrast({ range }: { range: number }) {
  checkAmount('contrast', 'range', range, 1)
  return described({ augmentation: 'contrast', range })
}

const makers: { readonly [name in AugmentationName]: (options: never) => Augmentation } = {
  crop: randomCrop,
  flip: randomFlip,
  cutout,
  rotate: randomRotation,
  noise: randomNoise,
  brightness: randomBrightness,
  contrast: randomContrast,
}

/** All kinds of augmentation. */
export const augmentationNames = Object.keys(makers) as readonly AugmentationName[]

/** Throws unless `value` is above 0 and at most `most`. */
function checkAmount(where: string, name: string, value: number, most: number): void {
  checkPositive(where, name, value)
  checkRange(where, name, value, 0, most)
}

function described<const T extends Augmentation>(augmentation: T): T {
  return Object.freeze(augmentation)
}

/**
 * Throws a UsageError unless all augmentations are known, in range, there once, and fit images [height,
 * width, channels].
 */
export function checkAugmentations(
  augmentations: readonly Augmentation[],
  [height, width, channels]: readonly [number, number, number],
): void {
  const seen = new Set<string>()
  const least = Math.min(height, width)
  const images = `images of ${height} x ${width}`
  for (const one of augmentations) {
    const { augmentation: name } = one
    if (!Object.hasOwn(makers, name)) throw unknownName('augmentation', name, augmentationNames)
    if (seen.has(name))
      throw new UsageError(`augmentation: expected each kind once, received "${name}" twice`)
    seen.add(name)
    // A description may come from a file, past the checks of the function that makes one.
    makers[name](one as never)
    if (name === 'crop' && one.padding >= least)
      throw new UsageError(`crop: expected a padding below ${least} for ${images}, received ${one.padding}`)
    if (name !== 'cutout') continue
    if (one.size > least)
      throw new UsageError(`cutout: expected a size of at most ${least} for ${images}, received ${one.size}`)
    if (one.fill !== 'mean' && one.fill.length !== channels)
      throw new UsageError(
        `cutout: expected a fill of ${channels} values, one a channel, received ${one.fill.length}`,
      )
  }
}

/** The augmentations, with the rounded mean of `images`, uint8 [N, H, W, C], where {@link cutout} asks it. */
export function withMean(
  augmentations: readonly Augmentation[],
  images: HostTensor,
): readonly Augmentation[] {
  return augmentations.map(one =>
    one.augmentation === 'cutout' && one.fill === 'mean'
      ? cutout({ ...one, fill: channelMeans(images).map(Math.round) })
      : one,
  )
}

function channelMeans({ shape, data }: HostTensor): number[] {
  const channels = shape[3]!
  const sums = new Array<number>(channels).fill(0)
  for (let i = 0; i < data.length; i += channels)
    for (let c = 0; c < channels; c++) sums[c]! += data[i + c] as number
  return sums.map(sum => (sum * channels) / data.length)
}
