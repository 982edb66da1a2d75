/** Layers that put zeros around or behind feature maps [N, H, W, C]. */
import { pad } from '../../graph/ops/shape.ts'
import type { Pair } from '../../graph/ops/window.ts'
import { checkInteger } from '../../util/errors.ts'
import { describe, featureMaps, type LayerDefinition, layerError } from '../layer.ts'

export interface ZeroPadding2dOptions {
  readonly name?: string
  /**
   * Rows and columns of zeros: one number for all sides, [above and below, left and right], or
   * [[above, below], [left, right]]. Default: 1.
   */
  readonly padding?: number | Pair | readonly [Pair, Pair]
}

/**
 * Zeros around each map. [N, H, W, C] to [N, above + H + below, left + W + right, C]. Keras's
 * ZeroPadding2D and its defaults.
 *
 * @throws UsageError where a count is no whole number of at least 0
 */
export function zeroPadding2d({ name, padding = 1 }: ZeroPadding2dOptions = {}) {
  const [rows, columns] = typeof padding === 'number' ? ([padding, padding] as const) : padding
  const sides = (count: number | Pair): Pair => (typeof count === 'number' ? [count, count] : count)
  const both: readonly [Pair, Pair] = [sides(rows), sides(columns)]
  for (const count of both.flat()) checkInteger('zeroPadding2d', 'padding', count, 0)
  return describe({ layer: 'zeroPadding2d', name, padding: both })
}

export const zeroPadding2dDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof zeroPadding2d>, inputs, scope) {
    const [[above, below], [left, right]] = layer.padding
    return pad(featureMaps(layer, inputs, scope), [above, left, 0, 0], [below, right, 0, 0])
  },
}

/**
 * Channels of zeros after a map's own, up to `channels` of them: what a shortcut without
 * parameters does where a residual network grows wider. [N, H, W, C] to [N, H, W, channels]. He
 * 2016, arXiv 1512.03385, option A.
 *
 * @throws UsageError where `channels` is no positive whole number; when built, where it is less than C
 */
export function channelPadding(options: { readonly channels: number; readonly name?: string }) {
  const { channels, name } = options
  checkInteger('channelPadding', 'channels', channels, 1)
  return describe({ layer: 'channelPadding', name, channels })
}

export const channelPaddingDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof channelPadding>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const missing = layer.channels - x.shape[3]!
    if (missing < 0)
      throw layerError(layer, scope, `expected at most ${layer.channels} channels, received ${x.shape[3]}`)
    return pad(x, [0, 0, 0, 0], [0, 0, 0, missing])
  },
}
