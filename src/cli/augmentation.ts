/** Augmentations as text: `crop:4,flip,cutout:8`. */
import type { Command } from 'commander'
import {
  type Augmentation,
  type AugmentationName,
  augmentationNames,
  cropModes,
  cutout,
  randomBrightness,
  randomContrast,
  randomCrop,
  randomFlip,
  randomNoise,
  randomRotation,
} from '../nn/augment/descriptions.ts'
import { UsageError, unknownName } from '../util/errors.ts'
import { numberOf } from './options.ts'

interface Form {
  /** As a person would write it. */
  readonly example: string
  /** The fewest and the most values after the name. */
  readonly values: readonly [number, number]
  make(value: number, word: string | undefined): Augmentation
}

const forms: { readonly [name in AugmentationName]: Form } = {
  crop: {
    example: 'crop:4 or crop:4:reflect',
    values: [1, 2],
    make: (padding, word = 'zeros') => {
      const mode = cropModes.find(other => other === word)
      if (mode === undefined) throw unknownName('mode of crop', word, cropModes)
      return randomCrop({ padding, mode })
    },
  },
  flip: {
    example: 'flip or flip:0.5',
    values: [0, 1],
    make: probability => randomFlip(Number.isNaN(probability) ? {} : { probability }),
  },
  cutout: { example: 'cutout:8', values: [1, 1], make: size => cutout({ size }) },
  rotate: { example: 'rotate:15', values: [1, 1], make: degrees => randomRotation({ degrees }) },
  noise: { example: 'noise:0.05', values: [1, 1], make: deviation => randomNoise({ deviation }) },
  brightness: { example: 'brightness:0.2', values: [1, 1], make: range => randomBrightness({ range }) },
  contrast: { example: 'contrast:0.2', values: [1, 1], make: range => randomContrast({ range }) },
}

export function addAugmentOption(command: Command): Command {
  return command.option(
    '--augment <list>',
    `changes of training images, in this order, as crop:4,flip: ${augmentationNames.join(', ')}`,
    augmentationsOf,
  )
}

/** `crop:4,flip,cutout:8` as descriptions. */
function augmentationsOf(text: string): Augmentation[] {
  return text.split(',').map(part => {
    const [name = '', ...values] = part.trim().split(':')
    const known = augmentationNames.find(other => other === name)
    if (known === undefined) throw unknownName('augmentation', name, augmentationNames)
    const {
      example,
      values: [least, most],
      make,
    } = forms[known]
    const value = values[0] === undefined ? Number.NaN : numberOf(values[0])
    const isNumber = values.length === 0 || Number.isFinite(value)
    if (values.length < least || values.length > most || !isNumber)
      throw new UsageError(`--augment: expected ${example}, received "${part.trim()}"`)
    return make(value, values[1])
  })
}
