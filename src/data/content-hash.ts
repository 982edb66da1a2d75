/** The canonical hash of a data set's content, by Node's crypto: eight times as fast as JavaScript's. */
import { createHash } from 'node:crypto'
import { canonicalJson } from '../util/hash.ts'
import { bytesOf } from '../util/host-tensor.ts'
import type { LabelledImages } from './data-set.ts'

/** `DataSet.hash`: see there for what goes in. */
export function hashContent(train: LabelledImages, test: LabelledImages): string {
  const hash = createHash('sha256')
  for (const tensor of [train.images, train.labels, test.images, test.labels]) {
    hash.update(`${canonicalJson({ dtype: tensor.dtype, shape: tensor.shape })}\n`)
    hash.update(bytesOf(tensor))
  }
  return hash.digest('hex')
}
