/** Augmentations on a graph: the minibatch of a step, changed by draws that the step's random keys give. */
import type { Tensor } from '../../graph/node.ts'
import { batchInward, batchOutward } from '../../graph/ops/batch-axis.ts'
import { add, cast, cos, log, mul, sin, sqrt, sub } from '../../graph/ops/elementwise.ts'
import { randomUniform } from '../../graph/ops/gather.ts'
import { matMul, reduceMean } from '../../graph/ops/reduce.ts'
import { gridSample } from '../../graph/ops/resample.ts'
import { concat, expand, reshape, slice, split, transpose } from '../../graph/ops/shape.ts'
import { constant } from '../../graph/ops/source.ts'
import { hostTensor, type Shape } from '../../util/host-tensor.ts'
import { type Augmentation, type AugmentationName, checkAugmentations } from './descriptions.ts'
import { isMoving, type Move, moved, type Pixels } from './places.ts'

/** Numbers uniform in [0, 1), float32 of `shape`, of the random stream `name`. */
export type Draw = (name: string, shape: Shape) => Tensor

/** Numbers that each image draws; noise draws one or two a value. */
const drawCounts: Readonly<Partial<Record<AugmentationName, number>>> = {
  crop: 2,
  flip: 1,
  cutout: 2,
  rotate: 1,
  brightness: 1,
  contrast: 1,
}

/** Changes images, uint8 [N, H, W, C], in the order of `augmentations`: float32 [H, W, N, C], 0 to 255. */
export function augment(images: Tensor, augmentations: readonly Augmentation[], draw: Draw): Tensor {
  const [count, height, width, channels] = images.shape as readonly [number, number, number, number]
  checkAugmentations(augmentations, [height, width, channels])
  const pixels = count * height * width
  let maps: Tensor | undefined
  let moves: Move[] = []
  const settled = (): Tensor => {
    if (moves.length === 0) return maps ?? cast(batchInward(images), 'float32')
    const from: Pixels = maps
      ? { rows: reshape(maps, [pixels, channels]), strides: { image: 1, line: width * count, column: count } }
      : {
          rows: reshape(images, [pixels, channels]),
          strides: { image: height * width, line: width, column: 1 },
        }
    maps = cast(moved(from, [height, width, count], moves), 'float32')
    moves = []
    return maps
  }
  for (const description of augmentations) {
    const stream = `augment/${description.augmentation}`
    const drawn = () => {
      const each = drawCounts[description.augmentation]!
      return split(draw(stream, [each, count]), 0, new Array<number>(each).fill(1)).map(u =>
        reshape(u, [count]),
      )
    }
    if (isMoving(description)) {
      moves.push({ description, draws: drawn() })
      continue
    }
    const x = settled()
    if (description.augmentation === 'rotate') maps = rotated(x, description.degrees, drawn()[0]!)
    else if (description.augmentation === 'noise')
      maps = add(x, mul(gaussian(stream, x.shape, draw), 255 * description.deviation))
    else if (description.augmentation === 'brightness')
      maps = onEachImage(x, drawn()[0]!, (rows, u) => add(rows, mul(sub(u, 0.5), 510 * description.range)))
    else
      maps = onEachImage(x, drawn()[0]!, (rows, u) => {
        const mean = reduceMean(rows, [0])
        const factor = add(mul(sub(u, 0.5), 2 * description.range), 1)
        return add(mul(sub(rows, mean), factor), mean)
      })
  }
  return settled()
}

/**
 * {@link augment} as a program has it: draws by the step's key of each stream, a uint32 scalar.
 * Returns [N, H, W, C].
 */
export function augmentByKey(
  images: Tensor,
  augmentations: readonly Augmentation[],
  keyOf: (stream: string) => Tensor,
): Tensor {
  return batchOutward(augment(images, augmentations, (name, shape) => randomUniform(keyOf(name), shape)))
}

/** Applies a rule to maps as [H W, N C], with each image's draw repeated over its channels, [N C]. */
function onEachImage(x: Tensor, u: Tensor, rule: (rows: Tensor, u: Tensor) => Tensor): Tensor {
  const [height, width, count, channels] = x.shape as readonly [number, number, number, number]
  const each = reshape(expand(reshape(u, [count, 1]), [count, channels]), [count * channels])
  return reshape(rule(reshape(x, [height * width, count * channels]), each), x.shape)
}

// The pixel at (x, y) from the centre comes from (x cos a - y sin a, x sin a + y cos a), y downwards:
// a turn to the left.
function rotated(maps: Tensor, degrees: number, u: Tensor): Tensor {
  const [height, width, count, channels] = maps.shape as readonly [number, number, number, number]
  const angle = reshape(mul(sub(u, 0.5), (degrees * Math.PI) / 90), [count, 1])
  const [c, s] = [cos(angle), sin(angle)]
  // In units of half an image, as GridSample reads them.
  const turn = concat([mul(c, 2 / width), mul(s, 2 / height), mul(s, -2 / width), mul(c, 2 / height)], 1)
  const fromCentre = Array.from({ length: height * width }, (_, i) => [
    (i % width) + 0.5 - width / 2,
    Math.floor(i / width) + 0.5 - height / 2,
  ])
  const places = constant(hostTensor('float32', [height * width, 2], fromCentre.flat()))
  const grid = reshape(matMul(places, reshape(turn, [count, 2, 2])), [count, height, width, 2])
  const planes = transpose(reshape(maps, [height * width, count * channels]), [1, 0])
  const turned = gridSample(reshape(planes, [count, channels, height, width]), grid)
  const back = transpose(reshape(turned, [count * channels, height * width]), [1, 0])
  return reshape(back, maps.shape)
}

// Box and Muller: sqrt(-2 ln(1 - u)) cos(2 pi v) and sin(2 pi v), standard normal for uniform u and v
function gaussian(stream: string, shape: Shape, draw: Draw): Tensor {
  const size = shape.reduce((a, b) => a * b, 1)
  const pairs = Math.ceil(size / 2)
  const [u, v] = split(draw(stream, [2, pairs]), 0, [1, 1])
  const radius = sqrt(mul(log(sub(1, u!)), -2))
  const angle = mul(v!, 2 * Math.PI)
  const both = reshape(concat([mul(radius, cos(angle)), mul(radius, sin(angle))], 0), [2 * pairs])
  return reshape(slice(both, 0, 0, size), shape)
}

/** The names of the random streams that {@link augment} draws from. */
export const augmentationStreams = (augmentations: readonly Augmentation[]): string[] =>
  augmentations.map(({ augmentation }) => `augment/${augmentation}`)
