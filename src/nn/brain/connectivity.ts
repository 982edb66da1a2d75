/** Which inputs a unit is connected to: sparse connectivity as data, and the masks that it draws. */
import { checkInteger, UsageError, unknownName } from '../../util/errors.ts'
import { showShape, sizeOf } from '../../util/host-tensor.ts'
import { type Key, permutation, threefry2x32, uniform } from '../../util/random.ts'
import { checkPositive } from '../options.ts'

/** Each connection is kept with probability `density`, independently. */
export type Bernoulli = {
  readonly connectivity: 'bernoulli'
  readonly density: number
}

/** Each unit keeps exactly `fanIn` of its inputs. */
export type FixedFanIn = {
  readonly connectivity: 'fixedFanIn'
  readonly fanIn: number
}

/** Each unit keeps the inputs within `radius` of its own place. */
export type Topographic = {
  readonly connectivity: 'topographic'
  readonly radius: number
  readonly inputShape?: readonly [number, number, number]
  readonly wrap: boolean
}

export type Connectivity = Bernoulli | FixedFanIn | Topographic

/**
 * Keeps each connection with probability `density`, independently: the number that a unit keeps is binomial.
 * A unit may be left without inputs; its output is then its bias.
 *
 * @throws UsageError where density is outside (0, 1]
 */
export function bernoulli({ density }: { readonly density: number }): Bernoulli {
  if (!(density > 0 && density <= 1))
    throw new UsageError(`bernoulli: density must be a number above 0 and at most 1, received ${density}`)
  return Object.freeze({ connectivity: 'bernoulli', density })
}

/**
 * Keeps exactly `fanIn` inputs of each unit, drawn without replacement. Of a convolution, `fanIn` of the
 * kH kW C inputs of each filter.
 *
 * @throws UsageError where fanIn is no positive whole number
 */
export function fixedFanIn({ fanIn }: { readonly fanIn: number }): FixedFanIn {
  checkInteger('fixedFanIn', 'fanIn', fanIn, 1)
  return Object.freeze({ connectivity: 'fixedFanIn', fanIn })
}

/**
 * Keeps the inputs within `radius` of a unit, in Euclidean distance, where neighbouring inputs are 1
 * apart. Nothing is drawn.
 *
 * - Dense units over flattened maps, with `inputShape` [H, W, C]: units stand in rows on a grid that covers
 *   the [H, W] sheet, of its proportions, and see all channels of the positions within reach.
 * - Dense units over vectors without a sheet: inputs and units stand on a line, evenly.
 * - Filters of a convolution: channels stand on a line, and a filter sees whole channels.
 *
 * `wrap` joins the ends: a ring, or a torus. Default: false.
 *
 * @throws UsageError where radius is no number above 0
 */
export function topographic(
  options: Omit<Topographic, 'connectivity' | 'wrap'> & { readonly wrap?: boolean },
) {
  const { radius, inputShape, wrap = false } = options
  checkPositive('topographic', 'radius', radius)
  for (const extent of inputShape ?? []) checkInteger('topographic', 'inputShape', extent, 1)
  return Object.freeze({
    connectivity: 'topographic',
    radius,
    ...(inputShape ? { inputShape } : {}),
    wrap,
  } as const satisfies Topographic)
}

/** A complete, checked description from one that may have come as JSON. */
export function toConnectivity(value: Connectivity): Connectivity {
  switch (value.connectivity) {
    case 'bernoulli':
      return bernoulli(value)
    case 'fixedFanIn':
      return fixedFanIn(value)
    case 'topographic':
      return topographic(value)
    default: {
      const { connectivity } = value as { connectivity: unknown }
      throw unknownName('connectivity', String(connectivity), ['bernoulli', 'fixedFanIn', 'topographic'])
    }
  }
}

/**
 * The kernel that a mask is for: [inputs, units], its rows kH kW positions by C channels for a convolution.
 */
export interface KernelExtents {
  /** Inputs of a unit: rows of the kernel. */
  readonly inputs: number
  /** The last of a row's axes: channels of a convolution, `inputs` of a dense layer. */
  readonly channels: number
  /** Outputs: columns of the kernel. */
  readonly units: number
}

/**
 * The mask of a kernel, row-major [inputs, units], of 0 and 1: a function of the key.
 *
 * @throws UsageError, naming `where`, for a fan-in above the inputs, an `inputShape` of another size, or a
 *   radius that leaves a unit without inputs
 */
export function connectionMask(
  where: string,
  connectivity: Connectivity,
  extents: KernelExtents,
  key: Key,
): Float32Array {
  const { inputs, units } = extents
  switch (connectivity.connectivity) {
    case 'bernoulli':
      return Float32Array.from(uniform(key, inputs * units), u => Number(u < connectivity.density))
    case 'fixedFanIn':
      return fixedFanInMask(where, connectivity.fanIn, extents, key)
    case 'topographic':
      return topographicMask(where, connectivity, extents)
  }
}

/** The share of connections that a mask keeps. */
export function realizedDensity(mask: ArrayLike<number>): number {
  let kept = 0
  for (let i = 0; i < mask.length; i++) kept += mask[i]!
  return kept / mask.length
}

/** The density that masks have, or have on average where they are drawn one by one. */
export function expectedDensity(where: string, connectivity: Connectivity, extents: KernelExtents): number {
  if (connectivity.connectivity === 'bernoulli') return connectivity.density
  if (connectivity.connectivity === 'topographic')
    return realizedDensity(topographicMask(where, connectivity, extents))
  checkFanIn(where, connectivity.fanIn, extents.inputs)
  return connectivity.fanIn / extents.inputs
}

function checkFanIn(where: string, fanIn: number, inputs: number): void {
  if (fanIn > inputs)
    throw new UsageError(`${where}: fanIn must be at most the ${inputs} inputs of a unit, received ${fanIn}`)
}

function fixedFanInMask(
  where: string,
  fanIn: number,
  { inputs, units }: KernelExtents,
  key: Key,
): Float32Array {
  checkFanIn(where, fanIn, inputs)
  const mask = new Float32Array(inputs * units)
  for (let unit = 0; unit < units; unit++) {
    // A key of its own for each unit.
    const order = permutation({ words: threefry2x32(...key.words, unit, 1) }, inputs)
    for (const row of order.subarray(0, fanIn)) mask[row * units + unit] = 1
  }
  return mask
}

function topographicMask(
  where: string,
  { radius, inputShape, wrap }: Topographic,
  { inputs, channels, units }: KernelExtents,
): Float32Array {
  if (inputShape && channels !== inputs)
    throw new UsageError(`${where}: inputShape is for dense layers; a convolution's channels stand on a line`)
  if (inputShape && sizeOf(inputShape) !== inputs)
    throw new UsageError(
      `${where}: inputShape ${showShape(inputShape)} has ${sizeOf(inputShape)} values, the layer has ${inputs} inputs`,
    )
  // A line is a sheet of one row.
  const [height, width, depth] = inputShape ?? [1, channels, 1]
  const rows = inputShape ? Math.max(1, Math.round(Math.sqrt((units * height) / width))) : 1
  const columns = Math.ceil(units / rows)
  const mask = new Float32Array(inputs * units)
  let needed = 0
  for (let unit = 0; unit < units; unit++) {
    const y = centre(Math.floor(unit / columns), rows, height)
    const x = centre(unit % columns, columns, width)
    let nearest = Infinity
    for (let row = 0; row < inputs; row++) {
      const place = Math.floor((row % channels) / depth)
      const dy = apart(y, Math.floor(place / width), height, wrap)
      const dx = apart(x, place % width, width, wrap)
      const distance = Math.hypot(dy, dx)
      nearest = Math.min(nearest, distance)
      // Sums of thirds and the like must not fall outside by rounding.
      if (distance <= radius + 1e-9) mask[row * units + unit] = 1
    }
    needed = Math.max(needed, nearest)
  }
  if (needed > radius + 1e-9)
    throw new UsageError(
      `${where}: radius ${radius} leaves units without inputs; the least that connects all is ${needed.toFixed(3)}`,
    )
  return mask
}

/** Where unit `index` of `count` stands on an axis of `extent` inputs at 0, 1, 2, ... */
function centre(index: number, count: number, extent: number): number {
  return ((index + 0.5) * extent) / count - 0.5
}

function apart(a: number, b: number, extent: number, wrap: boolean): number {
  const distance = Math.abs(a - b)
  return wrap ? Math.min(distance, extent - distance) : distance
}
