/** Canonical hashes of tensors, by Node's crypto: eight times as fast as JavaScript's. */
import { createHash } from 'node:crypto'
import { canonicalJson } from '../util/hash.ts'
import { bytesOf, type HostTensor } from '../util/host-tensor.ts'
import type { LabelledImages } from './data-set.ts'

/** SHA-256 over each tensor: one line of JSON with name (where it has one), dtype and shape, then its bytes. */
export function hashTensors(
  tensors: Iterable<{ readonly name?: string; readonly tensor: HostTensor }>,
): string {
  const hash = createHash('sha256')
  for (const { name, tensor } of tensors) {
    const { dtype, shape } = tensor
    hash.update(`${canonicalJson({ name, dtype, shape })}\n`)
    hash.update(bytesOf(tensor))
  }
  return hash.digest('hex')
}

/** `DataSet.hash`: see there for what goes in. */
export function hashContent(train: LabelledImages, test: LabelledImages): string {
  return hashTensors([train.images, train.labels, test.images, test.labels].map(tensor => ({ tensor })))
}
