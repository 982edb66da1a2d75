import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { OnnxNode } from '../src/onnx/model.ts'
import { joinedByNames } from '../src/runtime/steps/step-body.ts'

const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'), { maxLength: 3 })

/** As the definition says: nodes are put together until no two groups share a name. */
function joinedOneByOne(nodes: readonly OnnxNode[]): number[][] {
  const groups = nodes.map((_, i) => [i])
  const namesOf = (group: readonly number[]) => new Set(group.flatMap(i => nodes[i]!.inputs))
  const shares = (a: readonly number[], b: readonly number[]) => !namesOf(a).isDisjointFrom(namesOf(b))
  for (;;) {
    const group = groups.find(one => groups.some(other => other !== one && shares(one, other)))
    if (!group) return groups.map(all => all.toSorted((a, b) => a - b)).sort((a, b) => a.at(-1)! - b.at(-1)!)
    const other = groups.find(one => one !== group && shares(one, group))!
    groups.splice(groups.indexOf(other), 1)
    group.push(...other)
  }
}

test('nodes that share names are put together, also by way of others, in the order of the last of each group', () => {
  fc.assert(
    fc.property(fc.array(names, { maxLength: 12 }), all => {
      const nodes = all.map((inputs): OnnxNode => ({ op: 'Add', inputs, outputs: [], attributes: {} }))
      const groups = joinedByNames(nodes, ({ inputs }) => new Set(inputs))
      const found = groups.map(group => [...group].map(node => nodes.indexOf(node)).sort((a, b) => a - b))
      expect(found).toEqual(joinedOneByOne(nodes))
    }),
  )
})
