/** Reverse-mode differentiation. It walks the ops' own gradient rules and holds none. */
import { expansionOf, type Node, type Tensor, topological, withOrigin } from '../graph/node.ts'
import { add } from '../graph/ops/elementwise.ts'
import { zerosLike } from '../graph/ops/shape.ts'
import { filled } from '../graph/ops/source.ts'
import { UsageError } from '../util/errors.ts'
import { showShape } from '../util/host-tensor.ts'

/**
 * The gradients of a scalar with respect to any tensors of its graph, as symbolic tensors of their shapes.
 * A tensor that `loss` does not depend on has a gradient of zeros. What is computed for a node is for its
 * layer, in the backward pass.
 *
 * @param loss a scalar: shape [] or [1]
 * @param of tensors to differentiate with respect to
 * @throws UsageError where `loss` is no scalar, or where a path leads through an op without a gradient
 */
export function gradients(loss: Tensor, of: readonly Tensor[]): Tensor[] {
  if (loss.shape.some(extent => extent !== 1))
    throw new UsageError(`gradients: expected a scalar loss, received shape ${showShape(loss.shape)}`)
  const order = topological([loss], dependencies)
  const needed = reachableFrom(of, order)
  const cotangents = new Map<Node, (Tensor | undefined)[]>()
  const accumulate = (tensor: Tensor, cotangent: Tensor) => {
    const slots = cotangents.get(tensor.node) ?? []
    const sofar = slots[tensor.index]
    slots[tensor.index] = sofar ? add(sofar, cotangent) : cotangent
    cotangents.set(tensor.node, slots)
  }
  accumulate(loss, filled(loss.shape, 1, loss.dtype))
  for (const node of order.reverse()) {
    const received = cotangents.get(node)
    if (!received || !needed.has(node) || node.inputs.length === 0) continue
    if (node.op.gradient === 'expand') {
      const stands = expansionOf(node)
      for (const [i, cotangent] of received.entries()) if (cotangent) accumulate(stands[i]!, cotangent)
      continue
    }
    if (typeof node.op.gradient !== 'function') {
      // An op that stops gradients on purpose, or whose inputs are integers, ends the path.
      if (
        node.inputs.some(x => needed.has(x.node) && x.dtype.startsWith('float')) &&
        node.op.op !== 'StopGradient'
      )
        throw new UsageError(`gradients: no gradient flows through ${node.op.op}: ${node.op.gradient.none}`)
      continue
    }
    const rule = node.op.gradient
    withOrigin(node.origin && { pass: 'backward', layer: node.origin.layer }, () => {
      const all = node.outputs.map((_, i) => received[i])
      for (const [i, cotangent] of rule(node, all).entries()) {
        const input = node.inputs[i]!
        if (cotangent && needed.has(input.node)) accumulate(input, cotangent)
      }
    })
  }
  return of.map(tensor => cotangents.get(tensor.node)?.[tensor.index] ?? zerosLike(tensor))
}

/** A composite whose gradient is its expansion's depends on that expansion. */
function dependencies(node: Node): readonly Tensor[] {
  return node.op.gradient === 'expand' ? expansionOf(node) : node.inputs
}

/** The nodes of `order` that depend on any of `sources`, these included. */
function reachableFrom(sources: readonly Tensor[], order: readonly Node[]): Set<Node> {
  const reached = new Set(sources.map(tensor => tensor.node))
  for (const node of order) if (dependencies(node).some(input => reached.has(input.node))) reached.add(node)
  return reached
}
