/** Random changes of training images. */
export {
  type Augmentation,
  cutout,
  randomBrightness,
  randomContrast,
  randomCrop,
  randomFlip,
  randomNoise,
  randomRotation,
} from './descriptions.ts'
