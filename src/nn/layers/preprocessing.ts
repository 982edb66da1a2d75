/** Layers that bring images into the form that a pretrained network expects. */
import { sub } from '../../graph/ops/elementwise.ts'
import { alongAxes } from '../../graph/ops/separable.ts'
import { concat, slice } from '../../graph/ops/shape.ts'
import { constant } from '../../graph/ops/source.ts'
import { checkInteger } from '../../util/errors.ts'
import { hostTensor } from '../../util/host-tensor.ts'
import { describe, featureMaps, type LayerDefinition, layerError } from '../layer.ts'

export interface ResizingOptions {
  readonly name?: string
  /** Rows of the result. */
  readonly height: number
  /** Columns of the result. */
  readonly width: number
}

/**
 * Bilinear interpolation with half-pixel centres: output i reads the input at (i + 1/2) H / height - 1/2,
 * held to the edges. [N, H, W, C] to [N, height, width, C]. Keras's Resizing and its defaults: without
 * smoothing where it shrinks.
 *
 * @throws UsageError where an extent is no positive whole number
 */
export function resizing({ name, height, width }: ResizingOptions) {
  checkInteger('resizing', 'height', height, 1)
  checkInteger('resizing', 'width', width, 1)
  return describe({ layer: 'resizing', name, height, width })
}

export const resizingDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof resizing>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    const [rows, columns] = x.shape as readonly [number, number, ...number[]]
    return alongAxes(x, interpolation(rows, layer.height), interpolation(columns, layer.width))
  },
}

/** The matrix [to, from] whose row i holds the weights with which output i reads its two nearest inputs. */
function interpolation(from: number, to: number) {
  const weights = new Float32Array(to * from)
  for (let i = 0; i < to; i++) {
    const at = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1)
    const before = Math.floor(at)
    weights[i * from + before]! += 1 - (at - before)
    if (before + 1 < from) weights[i * from + before + 1]! += at - before
  }
  return constant(hostTensor('float32', [to, from], weights))
}

/** Mean blue, green and red of ImageNet's training images, 0 to 255. */
const MEANS = [103.939, 116.779, 123.68] as const

/**
 * Pixels 0 to 255, red, green, blue, to blue - 103.939, green - 116.779, red - 123.68: what networks that
 * were trained in Caffe on ImageNet expect. [N, H, W, 3] to [N, H, W, 3]. Keras's `preprocess_input` in its
 * mode "caffe".
 */
export function caffePixels(options: { readonly name?: string } = {}) {
  return describe({ layer: 'caffePixels', name: options.name })
}

export const caffePixelsDefinition: LayerDefinition = {
  build(layer: ReturnType<typeof caffePixels>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope)
    if (x.shape[3] !== 3)
      throw layerError(layer, scope, `expected images of 3 channels (RGB), received ${x.shape[3]}`)
    const bgr = concat(
      [2, 1, 0].map(channel => slice(x, 3, channel, 1)),
      3,
    )
    return sub(bgr, constant(hostTensor('float32', [3], MEANS)))
  },
}
