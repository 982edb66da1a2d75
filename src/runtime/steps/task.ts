/** What threads share in a stage: kernels, and graphs that ONNX Runtime runs part by part. */
import { sizeOf } from '../../util/host-tensor.ts'
import type { Kernel } from './kernel.ts'
import type { PartedGraph } from './parted-graph.ts'

export type Task = Kernel | PartedGraph

export const isParted = (task: Task): task is PartedGraph => 'graph' in task
export const isKernel = (task: Task): task is Kernel => !isParted(task)

/** What threads share of it: turns of the outermost loop, or parts. */
export const turnsOf = (task: Task): number => (isParted(task) ? task.parts : task.loops[0]!)

/** Operations on vectors, over all turns. */
export const workOf = (task: Task): number =>
  isParted(task) ? task.work : sizeOf(task.loops) * task.steps.length

/** The tensors that a task reads. */
export function namesReadBy(task: Task): string[] {
  const values = isParted(task) ? task.inputs : task.steps.flatMap(step => step.operands)
  return namesOf(values.flatMap(value => ('tensor' in value ? [value] : [])))
}

/** The tensors that a task writes. */
export const namesWrittenBy = (task: Task): string[] =>
  namesOf(isParted(task) ? task.outputs : [...task.stores, ...task.sums])

const namesOf = (values: readonly { readonly tensor: string }[]): string[] => [
  ...new Set(values.map(({ tensor }) => tensor)),
]
