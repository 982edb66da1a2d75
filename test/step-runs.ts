/** A training program as a whole loop of ONNX Runtime's, and step by step. */
import * as ort from 'onnxruntime-node'
import { expect } from 'vitest'
import { type Loader, sessionLoader } from '../src/runtime/loaded-program.ts'
import { steppedLoader } from '../src/runtime/steps/stepped.ts'
import type { HostTensor } from '../src/util/host-tensor.ts'

const refused: Loader = async () => {
  throw new Error('it has nothing to run step by step')
}

/** On one thread, on two, and on three. */
export const stepped = [1, 2, 3].map(threads => steppedLoader(threads, refused))

export const whole = sessionLoader(ort, {
  intraOpNumThreads: 1,
  enableMemPattern: false,
  logSeverityLevel: 3,
  extra: { session: { set_denormal_as_zero: '1' } },
})

/** What one run gives, in memory of its own. */
export async function resultsOf(
  load: Loader,
  bytes: Uint8Array,
  inputs: Readonly<Record<string, HostTensor>>,
): Promise<ReadonlyMap<string, Float32Array>> {
  const loaded = await load(bytes, undefined)
  try {
    const outputs = Object.entries(await loaded.run(inputs))
    return new Map(outputs.map(([name, { data }]) => [name, Float32Array.from(data as Float32Array)]))
  } finally {
    await loaded.release()
  }
}

/** Every value of `found` within a share of the largest value. */
export function expectSame(
  found: ReadonlyMap<string, Float32Array>,
  expected: ReadonlyMap<string, Float32Array>,
  share: number,
): void {
  expect([...found.keys()]).toEqual([...expected.keys()])
  for (const [name, values] of expected) {
    const scale = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0.1)
    const others = found.get(name)!
    const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - others[i]!)), 0)
    expect(worst / scale, name).toBeLessThan(share)
  }
}
