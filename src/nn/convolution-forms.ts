/** How a training program computes the convolutions of a model. */
import { expansionOf, type Node, topological } from '../graph/node.ts'
import { Conv, GroupedConv } from '../graph/ops/conv.ts'
import { formOf } from '../graph/ops/conv-form.ts'
import { input } from '../graph/ops/source.ts'
import type { Extents, WindowAttributes } from '../graph/ops/window.ts'
import { type BuildOptions, buildModel } from './build.ts'
import type { Model } from './model.ts'

/**
 * The forms of each layer's convolutions in minibatches of `batchSize` images, by the layer's name, such as
 * `dft` or `winograd 4x4`, that of its tiles. Layers without convolutions are left out.
 */
export function convolutionForms(
  model: Model,
  batchSize: number,
  options: Pick<BuildOptions, 'convolution'> = {},
): ReadonlyMap<string, readonly string[]> {
  const images = input('images', 'float32', [batchSize, ...model.input])
  const { logits } = buildModel(model, images, { ...options, training: true })
  const inside = (node: Node) => (node.op === GroupedConv ? expansionOf(node) : node.inputs)
  const forms = new Map<string, string[]>()
  for (const node of topological([logits], inside)) {
    const form = formText(node)
    const layer = node.origin?.layer
    if (form === undefined || layer === undefined) continue
    const known = forms.get(layer) ?? []
    if (!known.includes(form)) forms.set(layer, [...known, form])
  }
  return forms
}

function formText({ op, inputs: [x, w], attributes }: Node): string | undefined {
  if (op === GroupedConv) return w!.shape[2] === 1 ? 'depthwise' : undefined
  if (op !== Conv) return undefined
  const form = formOf(x!.shape as unknown as Extents, w!.shape[3]!, attributes as WindowAttributes)
  return form.form === 'winograd' ? `winograd ${form.tile.join('x')}` : form.form
}
