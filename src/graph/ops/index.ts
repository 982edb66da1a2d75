/** Every op by its name. */
import type { OpDefinition } from '../node.ts'
import * as attentionOps from './attention.ts'
import * as batchAxisOps from './batch-axis.ts'
import * as convOps from './conv.ts'
import * as dotProductAttentionOps from './dot-product-attention.ts'
import * as elementwise from './elementwise.ts'
import * as flattenedOps from './flattened.ts'
import * as gatherOps from './gather.ts'
import * as lossOps from './loss.ts'
import * as normalizeOps from './normalize.ts'
import * as poolOps from './pool.ts'
import * as reduceOps from './reduce.ts'
import * as resampleOps from './resample.ts'
import * as shapeOps from './shape.ts'
import * as sourceOps from './source.ts'

const modules = [
  sourceOps,
  shapeOps,
  elementwise,
  reduceOps,
  flattenedOps,
  gatherOps,
  resampleOps,
  batchAxisOps,
  convOps,
  poolOps,
  normalizeOps,
  lossOps,
  attentionOps,
  dotProductAttentionOps,
]

/** All ops, by the names that they carry. */
export const ops: ReadonlyMap<string, OpDefinition> = new Map(
  modules
    .flatMap(module => Object.values(module) as unknown[])
    .filter((value): value is OpDefinition => typeof value === 'object' && value !== null && 'op' in value)
    .map(op => [op.op, op]),
)
