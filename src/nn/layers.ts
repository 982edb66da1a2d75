/** Every kind of layer and its rule. */
import { UsageError, unknownName } from '../util/errors.ts'
import * as cbam from './brain/cbam.ts'
import * as divisive from './brain/divisive-normalization.ts'
import { kWinnersTakeAllDefinition } from './brain/k-winners-take-all.ts'
import * as lateral from './brain/lateral-inhibition.ts'
import { localResponseNormalizationDefinition } from './brain/local-response-normalization.ts'
import { mexicanHatDefinition } from './brain/mexican-hat.ts'
import { multiHeadAttentionDefinition } from './brain/multi-head-attention.ts'
import * as bottleneck from './brain/non-local.ts'
import { pushPullConv2dDefinition } from './brain/push-pull.ts'
import * as attention from './brain/self-attention.ts'
import * as sparse from './brain/sparse.ts'
import { squeezeExcitationDefinition } from './brain/squeeze-excitation.ts'
import { valueAttentionDefinition } from './brain/value-attention.ts'
import type { Layer, LayerDefinition } from './layer.ts'
import * as convolution from './layers/convolution.ts'
import * as core from './layers/core.ts'
import * as normalization from './layers/normalization.ts'
import * as padding from './layers/padding.ts'
import * as pooling from './layers/pooling.ts'
import * as preprocessing from './layers/preprocessing.ts'

const definitions = {
  dense: core.denseDefinition,
  activation: core.activationDefinition,
  flatten: core.flattenDefinition,
  rescaling: core.rescalingDefinition,
  dropout: core.dropoutDefinition,
  add: core.addDefinition,
  concatenate: core.concatenateDefinition,
  conv2d: convolution.conv2dDefinition,
  depthwiseConv2d: convolution.depthwiseConv2dDefinition,
  separableConv2d: convolution.separableConv2dDefinition,
  maxPooling2d: pooling.maxPooling2dDefinition,
  averagePooling2d: pooling.averagePooling2dDefinition,
  globalAveragePooling2d: pooling.globalAveragePooling2dDefinition,
  globalMaxPooling2d: pooling.globalMaxPooling2dDefinition,
  zeroPadding2d: padding.zeroPadding2dDefinition,
  channelPadding: padding.channelPaddingDefinition,
  resizing: preprocessing.resizingDefinition,
  caffePixels: preprocessing.caffePixelsDefinition,
  batchNormalization: normalization.batchNormalizationDefinition,
  layerNormalization: normalization.layerNormalizationDefinition,
  sparseDense: sparse.sparseDenseDefinition,
  sparseConv2d: sparse.sparseConv2dDefinition,
  lateralInhibition: lateral.lateralInhibitionDefinition,
  differenceOfGaussians: lateral.differenceOfGaussiansDefinition,
  mexicanHat: mexicanHatDefinition,
  divisiveNormalization: divisive.divisiveNormalizationDefinition,
  generalizedDivisiveNormalization: divisive.generalizedDivisiveNormalizationDefinition,
  localResponseNormalization: localResponseNormalizationDefinition,
  kWinnersTakeAll: kWinnersTakeAllDefinition,
  pushPullConv2d: pushPullConv2dDefinition,
  valueAttention: valueAttentionDefinition,
  pixelAttention: attention.pixelAttentionDefinition,
  mapAttention: attention.mapAttentionDefinition,
  squeezeExcitation: squeezeExcitationDefinition,
  channelAttention: cbam.channelAttentionDefinition,
  spatialAttention: cbam.spatialAttentionDefinition,
  cbam: cbam.cbamDefinition,
  nonLocal: bottleneck.nonLocalDefinition,
  saganAttention: bottleneck.saganAttentionDefinition,
  multiHeadAttention: multiHeadAttentionDefinition,
} satisfies Record<string, LayerDefinition>

/** The kinds of layers that Fovea has. */
export const layerKinds = Object.keys(definitions)

const registered = new Map<string, LayerDefinition>()

/**
 * Makes a kind of layer known, so that models may use descriptions `{ layer: kind, ... }`.
 *
 * @throws UsageError where the kind exists with another rule
 */
export function registerLayer(kind: string, definition: LayerDefinition): void {
  const known = Object.hasOwn(definitions, kind) || (registered.get(kind) ?? definition) !== definition
  if (known) throw new UsageError(`registerLayer: expected a new kind, received "${kind}", which exists`)
  registered.set(kind, definition)
}

/** The rule of a layer's kind. */
export function layerDefinition(layer: Layer): LayerDefinition {
  const own = registered.get(layer.layer)
  if (own) return own
  if (!Object.hasOwn(definitions, layer.layer))
    throw unknownName('layer', layer.layer, [...layerKinds, ...registered.keys()])
  return definitions[layer.layer as keyof typeof definitions]
}
