/** The graph's functions, for layers of one's own. */
export type { Tensor } from './node.ts'
export { batchInward, batchOutward } from './ops/batch-axis.ts'
export { conv } from './ops/conv.ts'
export * from './ops/elementwise.ts'
export { gather, oneHot, randomMask } from './ops/gather.ts'
export { averagePool, maxPool } from './ops/pool.ts'
export {
  argMax,
  logSoftmax,
  matMul,
  reduceMax,
  reduceMean,
  reduceSum,
  softmax,
  sumAll,
  topK,
} from './ops/reduce.ts'
export { concat, expand, pad, reshape, slice, split, transpose } from './ops/shape.ts'
export { constant, filled, input, scalar } from './ops/source.ts'
export { windowOf } from './ops/window.ts'
