/** Which training images train and which validate, and the order in which an epoch visits them. */
import { checkInteger, checkRange, UsageError } from '../util/errors.ts'
import { type HostTensor, showShape } from '../util/host-tensor.ts'
import { type Key, key, permutation } from '../util/random.ts'

export interface SplitOptions {
  /**
   * How much of what validation leaves is trained on, in (0, 1], each class alike. Default 1. The validation
   * images do not depend on it, so that arms with different fractions are validated on the same images.
   */
  readonly fraction?: number
  /**
   * Validation images: a share of all training images in (0, 1), or their number; 0 for none. Default 0.1.
   */
  readonly validation?: number
  /**
   * Default `stratified` (each class alike); `random`, whatever the class; `first`, the file's first images.
   */
  readonly validationFrom?: 'stratified' | 'random' | 'first'
  readonly seed: number
}

/** Indices into the training images, ascending, disjoint. */
export interface TrainingSplit {
  readonly train: Int32Array
  readonly validation: Int32Array
}

/**
 * Splits training images by their labels, int32 [n]: V = round(validation * n) of them validate (or
 * `validation` itself where it is a number of images) and round(fraction * (n - V)) train. Where the split is
 * stratified the classes share these totals by largest remainder, each within one image of its exact share.
 * The draw depends on the seed alone: key(seed, 'split', 'validation' or 'fraction', class).
 */
export function splitTraining(labels: HostTensor, classCount: number, options: SplitOptions): TrainingSplit {
  const { fraction = 1, validation = 0.1, validationFrom = 'stratified', seed } = options
  checkInteger('split', 'seed', seed, 0)
  if (!(fraction > 0 && fraction <= 1))
    throw new UsageError(`split: fraction must be above 0 and at most 1, received ${fraction}`)
  checkRange('split', 'validation', validation, 0)
  if (validation >= 1) checkInteger('split', 'validation, as a number of images,', validation, 1)
  const classes = indicesByClass(labels, classCount)
  const n = labels.data.length

  const validationCount = validation < 1 ? Math.round(validation * n) : validation
  if (validation > 0 && validationCount === 0)
    throw new UsageError(`split: validation ${validation} of ${n} training images leaves no validation image`)
  if (validationCount >= n)
    throw new UsageError(`split: ${validationCount} validation images of ${n} leave nothing to train on`)
  const chosen = new Uint8Array(n)
  for (const index of validationIndices(classes, n, validationCount, validationFrom, seed)) chosen[index] = 1
  const isChosen = (index: number) => chosen[index] === 1
  const validationPart = classes.map(members => members.filter(isChosen))
  if (validationCount > 0) checkClasses('validation', validationPart)

  const rest = classes.map(members => members.filter(index => !isChosen(index)))
  const trainCount = Math.round(fraction * (n - validationCount))
  const trainPart =
    fraction === 1 ? rest : drawStratified(rest, trainCount, c => key(seed, 'split', 'fraction', c))
  checkClasses('train', trainPart)
  return { train: gather(trainPart), validation: gather(validationPart) }
}

/** The order in which an epoch visits images: a copy of `indices`, shuffled by key(seed, 'order', epoch). */
export function minibatchOrder(indices: Int32Array, seed: number, epoch: number): Int32Array {
  const order = permutation(key(seed, 'order', epoch), indices.length)
  // A loop, since `map` calls a function for each: it takes as long as the drawing.
  for (let i = 0; i < order.length; i++) order[i] = indices[order[i]!]!
  return order
}

function validationIndices(
  classes: readonly Int32Array[],
  n: number,
  count: number,
  from: NonNullable<SplitOptions['validationFrom']>,
  seed: number,
): Int32Array {
  switch (from) {
    case 'first':
      return Int32Array.from({ length: count }, (_, i) => i)
    case 'random':
      return permutation(key(seed, 'split', 'validation'), n).subarray(0, count)
    case 'stratified':
      return gather(drawStratified(classes, count, c => key(seed, 'split', 'validation', c)))
    default:
      throw new UsageError(`split: validationFrom must be stratified, random or first, received ${from}`)
  }
}

/** `total` of the members of all classes, each class its share, drawn without replacement. */
function drawStratified(
  classes: readonly Int32Array[],
  total: number,
  keyOf: (c: number) => Key,
): Int32Array[] {
  const quotas = largestRemainder(
    classes.map(members => members.length),
    total,
  )
  return classes.map((members, c) =>
    permutation(keyOf(c), members.length)
      .subarray(0, quotas[c]!)
      .map(position => members[position]!),
  )
}

/**
 * Shares `total` in proportion to `sizes`: the floors first, then one each to the largest remainders (ties:
 * lowest index).
 */
function largestRemainder(sizes: readonly number[], total: number): number[] {
  const sum = sizes.reduce((a, b) => a + b, 0)
  // Whole-number arithmetic: total * size stays far below 2^53, so that equal remainders compare equal.
  const quotas = sizes.map(size => Math.floor((total * size) / sum))
  const remainders = sizes.map((size, i) => ({ i, remainder: (total * size) % sum }))
  remainders.sort((a, b) => b.remainder - a.remainder || a.i - b.i)
  const missing = total - quotas.reduce((a, b) => a + b, 0)
  for (const { i } of remainders.slice(0, missing)) quotas[i]!++
  return quotas
}

function indicesByClass(labels: HostTensor, classCount: number): Int32Array[] {
  if (labels.dtype !== 'int32' || labels.shape.length !== 1)
    throw new UsageError(
      `split: labels must be int32 [count], received ${labels.dtype} ${showShape(labels.shape)}`,
    )
  const classes = Array.from({ length: classCount }, (): number[] => [])
  ;(labels.data as Int32Array).forEach((label, i) => {
    const members = classes[label]
    if (members === undefined)
      throw new UsageError(
        `split: label ${label} at position ${i} is no class: expected 0 .. ${classCount - 1}`,
      )
    members.push(i)
  })
  return classes.map(members => Int32Array.from(members))
}

function checkClasses(split: 'train' | 'validation', classes: readonly Int32Array[]): void {
  const total = classes.reduce((sum, members) => sum + members.length, 0)
  const empty = classes.findIndex(members => members.length === 0)
  if (empty >= 0)
    throw new UsageError(
      `split: expected an image of each of the ${classes.length} classes in the ${split} split, received none of class ${empty} (${total} in all): ask for a larger ${split === 'train' ? 'fraction' : 'validation'}`,
    )
}

/** All indices, ascending. */
function gather(parts: readonly Int32Array[]): Int32Array {
  return Int32Array.from(parts.flatMap(part => Array.from(part))).sort()
}
