/** The order in which Keras lists a model's layers. */
import type { LayerUse, Model } from '../nn/model.ts'

/**
 * The layers of a model as Keras's `model.layers` has them: the farther from the output, the earlier; those
 * equally far in the order in which a walk from the output meets them first. Keras's files of weights go by
 * it where names do not help. After keras/src/ops/function.py, map_graph.
 */
export function kerasOrder(model: Model): LayerUse[] {
  const byName = new Map(model.layers.map(use => [use.name, use]))
  const met = new Map<LayerUse, number>()
  const finished: LayerUse[] = []
  // A walk that keeps its own stack: a network may be deeper than the engine's.
  const stack: { use: LayerUse; next: number }[] = []
  const meet = (use: LayerUse | undefined) => {
    if (!use || met.has(use)) return
    met.set(use, met.size)
    stack.push({ use, next: 0 })
  }
  meet(byName.get(model.output))
  for (let top = stack.at(-1); top; top = stack.at(-1)) {
    const source = top.use.inputs[top.next++]
    if (source !== undefined) meet(byName.get(source))
    else finished.push(stack.pop()!.use)
  }
  const depths = new Map<LayerUse, number>()
  for (const use of finished.toReversed()) {
    const depth = depths.get(use) ?? 0
    depths.set(use, depth)
    for (const source of use.inputs) {
      const before = byName.get(source)
      if (before) depths.set(before, Math.max(depth + 1, depths.get(before) ?? 0))
    }
  }
  return finished.toSorted((a, b) => depths.get(b)! - depths.get(a)! || met.get(a)! - met.get(b)!)
}
