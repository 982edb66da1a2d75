/** The random numbers of training steps. */
import type { HostTensor } from '../util/host-tensor.ts'
import { bitsAt, key } from '../util/random.ts'

/** A program's inputs `keys/STREAM`, uint32 [steps, 1], for `steps` steps from `from` on, counted from 0. */
export function stepKeys(
  streams: readonly string[],
  seed: number,
  from: number,
  steps: number,
): Record<string, HostTensor> {
  return Object.fromEntries(
    streams.map(name => {
      const stream = key(seed, 'step', name)
      const data = Uint32Array.from({ length: steps }, (_, i) => bitsAt(stream, from + i))
      return [`keys/${name}`, { dtype: 'uint32', shape: [steps, 1], data }]
    }),
  )
}
