/** What the machine can do at best: the limits that every row stands beside. */
import { execFile } from 'node:child_process'
import { arch, availableParallelism, cpus, platform, totalmem } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import type { Shape } from '../src/util/host-tensor.ts'

export interface Peaks {
  readonly threads: number
  /** Of the fastest float32 matrix product, 2 operations a multiply-add, in 10^9 a second. */
  readonly gflops: number
  /** Of a sum of two vectors that no cache holds: two read, one written, in 10^9 bytes a second. */
  readonly gigabytes: number
}

export const machine = {
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  memory: totalmem(),
  platform: `${platform()} ${arch()}`,
  node: process.version,
}

/** Which code is measured: git's name of the folder src, with a + where it was changed since; `unknown` without git. */
export async function codeName(): Promise<string> {
  const git = async (...args: string[]) =>
    (await promisify(execFile)('git', args, { cwd: join(import.meta.dirname, '..') })).stdout.trim()
  try {
    const tree = await git('rev-parse', '--short=10', 'HEAD:src')
    return (await git('status', '--porcelain', '--', 'src')) === '' ? tree : `${tree}+`
  } catch {
    return 'unknown'
  }
}

/** Of square matrices: smaller ones, which caches hold, are multiplied faster by up to a quarter. */
const SIDES = [384, 768, 1536]
const VALUES = 2 ** 25
const RUNS = 5
/** Operations in one run, so that the call itself does not count. */
const CHAIN = 16

/** The fastest of some runs of ONNX Runtime's own kernels. */
export async function peaksOf(threads: number): Promise<Peaks> {
  const engine = await openEngine({ threads })
  try {
    const gflops: number[] = []
    for (const side of SIDES)
      gflops.push((2 * side ** 3) / (await fastest(engine, 'MatMul', [side, side])) / 1e9)
    const sum = await fastest(engine, 'Add', [VALUES])
    return { threads, gflops: Math.max(...gflops), gigabytes: (3 * 4 * VALUES) / sum / 1e9 }
  } finally {
    await engine.close()
  }
}

/** Seconds of one operation on two operands of a shape. */
async function fastest(engine: Engine, op: string, shape: Shape): Promise<number> {
  const count = shape.reduce((product, extent) => product * extent, 1)
  const operand = { dtype: 'float32', shape, data: new Float32Array(count).fill(2 ** -10) } as const
  await engine.write({ a: operand, b: operand })
  const program = await engine.load(encodeModel(chain(op, shape)))
  let best = Number.POSITIVE_INFINITY
  for (let run = 0; run <= RUNS; run++) {
    const began = performance.now()
    await program.run({ keep: { y: 'y' } })
    // The first run finds its memory.
    if (run > 0) best = Math.min(best, (performance.now() - began) / 1000 / CHAIN)
  }
  await program.release()
  return best
}

/** b, a op b, a op (a op b)... */
function chain(op: string, shape: Shape): OnnxModel {
  const names = ['b', ...Array.from({ length: CHAIN - 1 }, (_, i) => `y${i}`), 'y']
  const nodes = names.slice(1).map((name, i): OnnxNode => {
    return { op, inputs: ['a', names[i]!], outputs: [name], attributes: {} }
  })
  const value = (name: string) => ({ name, dtype: 'float32' as const, shape })
  return {
    irVersion: 9,
    producer: 'fovea',
    opsets: [{ domain: '', version: 18 }],
    graph: { name: op, nodes, initializers: [], inputs: [value('a'), value('b')], outputs: [value('y')] },
  }
}
