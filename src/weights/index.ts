/**
 * Pretrained weights: files of Keras, safetensors and ONNX, and how their tensors find their places in a
 * model.
 */

export { fetchImageNetWeights, type ImageNetOptions, isPublished } from './imagenet.ts'
export {
  checkWeights,
  lackingText,
  type MatchedWeights,
  type MatchReport,
  matchWeights,
  some,
  wantedLayers,
} from './match.ts'
export { foveaLayers, type NamedTensors } from './named-tensors.ts'
export { readWeights } from './read.ts'
