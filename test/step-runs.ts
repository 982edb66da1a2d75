/** A training program as a whole loop of ONNX Runtime's, and step by step. */
import * as ort from 'onnxruntime-node'
import { expect } from 'vitest'
import { type Loader, sessionLoader } from '../src/runtime/loaded-program.ts'
import { steppedLoader } from '../src/runtime/steps/stepped.ts'
import { type HostTensor, toNumbers } from '../src/util/host-tensor.ts'

type Results = Readonly<Record<string, HostTensor>>

const refused: Loader = async () => {
  throw new Error('it has nothing to run step by step')
}

/** By the number of threads. */
export const stepped = {
  1: steppedLoader(1, refused),
  2: steppedLoader(2, refused),
  3: steppedLoader(3, refused),
}

/** By the number of threads. */
export const whole = { 1: loops(1), 2: loops(2) }

function loops(threads: number): Loader {
  return sessionLoader(ort, {
    intraOpNumThreads: threads,
    enableMemPattern: false,
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    extra: { session: { set_denormal_as_zero: '1' } },
  })
}

/** What one run gives, in memory of its own: what a stepped program gives changes with its next run. */
export async function resultsOf(load: Loader, bytes: Uint8Array, inputs: Results): Promise<Results> {
  const loaded = await load(bytes, undefined)
  try {
    return copies(await loaded.run(inputs))
  } finally {
    await loaded.release()
  }
}

export const copies = (tensors: Results): Record<string, HostTensor> =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, copyOf(tensor)]))

export const copyOf = (tensor: HostTensor): HostTensor => ({ ...tensor, data: tensor.data.slice() })

/** The largest difference, of the largest value. */
export function worstOf(expected: HostTensor, found: HostTensor): number {
  const [values, others] = [toNumbers(expected), toNumbers(found)]
  // What is nothing but rounding, as the gradient of a bias that is normalized away, has no scale of its own.
  const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1)
  return values.reduce((most, value, i) => Math.max(most, Math.abs(value - others[i]!)), 0) / scale
}

/** Every value of `found` within a share of the largest value. */
export function expectSame(found: Results, expected: Results, share: number): void {
  expect(Object.keys(found)).toEqual(Object.keys(expected))
  for (const [name, tensor] of Object.entries(expected))
    expect(worstOf(tensor, found[name]!), name).toBeLessThan(share)
}
