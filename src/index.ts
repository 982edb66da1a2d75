/** Fovea as a library, on Node. */
export { compileEvaluation, type EvaluateProgram } from './compile/evaluate-program.ts'
export { compilePrediction } from './compile/predict-program.ts'
export { compileTraining, type TrainProgram, type TrainSpec } from './compile/train-program.ts'
export {
  type ChannelCard,
  type DataCard,
  type DuplicateCount,
  dataCard,
  type SplitCard,
} from './data/card.ts'
export type { DataSet, LabelledImages, LoadOptions, SkippedFile } from './data/data-set.ts'
export type { DuplicateGroup } from './data/duplicates.ts'
export { dataSetNames, describeDataSets, loadDataSet } from './data/registry.ts'
export { minibatchOrder, type SplitOptions, splitTraining, type TrainingSplit } from './data/split.ts'
export * as graph from './graph/index.ts'
export * from './nn/brain/index.ts'
export * from './nn/index.ts'
export { describe, featureMaps, type LayerDefinition, layerError, type Scope, vectors } from './nn/layer.ts'
export { registerLayer } from './nn/layers.ts'
export { type Cost, type StepCost, stepCost } from './onnx/cost.ts'
export { decodeModel } from './onnx/decode.ts'
export { formatModel } from './onnx/format.ts'
export type {
  Device,
  Engine,
  EngineOptions,
  NodeTiming,
  Program,
  ProgramOptions,
  RunCall,
  RunTiming,
} from './runtime/engine.ts'
export { openEngine } from './runtime/node.ts'
export { type Checkpoint, loadCheckpoint, saveCheckpoint, trainedValues } from './train/checkpoint.ts'
export {
  Diverged,
  type FitOptions,
  type FitResult,
  fit,
  Interrupted,
  storeTrainingImages,
} from './train/fit.ts'
export { backboneOf, backboneRate, frozenBy } from './train/freeze.ts'
export {
  type Measured,
  type Profile,
  type ProfiledLayer,
  type ProfiledNode,
  type ProfiledPass,
  type ProfileOptions,
  profileTraining,
} from './train/profile.ts'
export {
  type EarlyStopping,
  type EpochRecord,
  type LoadedWeights,
  type TrainEvent,
  type TrainingSpec,
  trainingSpec,
} from './train/spec.ts'
export { openWeights, type Start, startFrom, type WeightsSource } from './train/transfer.ts'
export { runTrial, type TrialOptions, type TrialResult } from './train/trial.ts'
export { FoveaError, UsageError } from './util/errors.ts'
export { type HostTensor, hostTensor } from './util/host-tensor.ts'
export {
  checkWeights,
  fetchImageNetWeights,
  type ImageNetOptions,
  type MatchedWeights,
  type MatchReport,
  matchWeights,
  type NamedTensors,
  readWeights,
} from './weights/index.ts'
export type { Architecture, BuildOptions, Source } from './zoo/architecture.ts'
export { architectureNamed, architectures, paperNamed, papers } from './zoo/index.ts'
export type { Arm, Claim, Paper, Scale } from './zoo/paper.ts'
