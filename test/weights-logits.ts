/** The logits of a model with given values, for the tests of weights. */
import { input } from '../src/graph/ops/source.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Model } from '../src/nn/model.ts'
import { type HostTensor, hostTensor, toNumbers } from '../src/util/host-tensor.ts'
import { evaluate } from './evaluate.ts'
import type { Values } from './reference.ts'

/** @param images [N, H, W, C], 0 to 255 */
export async function logitsOf(
  model: Model,
  values: Readonly<Record<string, HostTensor>>,
  images: { readonly shape: readonly number[]; readonly data: ArrayLike<number> },
): Promise<Values> {
  const built = buildModel(model, input('images', 'float32', images.shape), { training: false })
  const feeds = { ...values, images: hostTensor('float32', images.shape, images.data) }
  const [logits] = await evaluate([built.logits], feeds)
  return { shape: logits!.shape, data: Float64Array.from(toNumbers(logits!)) }
}
