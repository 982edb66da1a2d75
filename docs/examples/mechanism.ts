import { describe, featureMaps, graph, type LayerDefinition, registerLayer } from 'fovea'

export interface PeakInhibitionOptions {
  readonly name?: string
  /** Width and height of the neighbourhood, in cells; odd. Default: 3. */
  readonly size?: number
  /** Share of the neighbourhood's maximum that is subtracted. Default: 0.5. */
  readonly strength?: number
  /** Learn one strength for each channel, from `strength` on. Default: false. */
  readonly learned?: boolean
}

/** y = relu(x - s_c max over the neighbourhood of x). [N, H, W, C] to the same shape. */
export function peakInhibition(options: PeakInhibitionOptions = {}) {
  const { name, size = 3, strength = 0.5, learned = false } = options
  return describe({ layer: 'peakInhibition', name, size, strength, learned })
}

const definition: LayerDefinition = {
  build(layer: ReturnType<typeof peakInhibition>, inputs, scope) {
    const x = featureMaps(layer, inputs, scope) // [H, W, N, C]
    const { size } = layer
    const window = graph.windowOf(scope.path, [x.shape[0]!, x.shape[1]!], [size, size], [1, 1], 'same')
    const peak = graph.maxPool(x, window)
    const strength = layer.learned
      ? scope.parameter('strength', [x.shape[3]!], {
          initializer: { initializer: 'constant', value: layer.strength },
        })
      : layer.strength
    return graph.relu(graph.sub(x, graph.mul(peak, strength)))
  },
}

registerLayer('peakInhibition', definition)
