/** The memory of a process and of those that it started. */
import { readFile } from 'node:fs/promises'
import { FoveaError } from '../src/util/errors.ts'

/**
 * The most bytes that were resident, summed over a process and its living children.
 *
 * @throws FoveaError where there is no /proc (another system than Linux)
 */
export async function peakBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(status)
  if (!peak) throw new FoveaError(`memory: expected /proc/${pid}/status with VmHWM, received none`)
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  let sum = Number(peak[1]) * 1024
  for (const child of children.split(' ').filter(Boolean)) sum += await peakBytes(Number(child))
  return sum
}
