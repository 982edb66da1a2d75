/** An {@link OnnxModel} as the bytes of an .onnx file. */
import { UsageError } from '../util/errors.ts'
import { bytesOf, type HostTensor, showShape, sizeOf } from '../util/host-tensor.ts'
import type { Attribute, OnnxGraph, OnnxModel, OnnxNode, ValueInfo } from './model.ts'
import { attributeTypes, elementTypes } from './schema.ts'
import { Writer } from './wire.ts'

/**
 * The bytes of `model`; the same model gives the same bytes. `float` and `floats` attributes are rounded to
 * float32, the only precision that the format has for them.
 */
export function encodeModel(model: OnnxModel): Uint8Array {
  const writer = new Writer()
  writer.int(1, model.irVersion)
  writer.string(2, model.producer)
  writer.message(7, graphOf(model.graph))
  for (const { domain, version } of model.opsets) {
    const opset = new Writer()
    opset.string(1, domain)
    opset.int(2, version)
    writer.message(8, opset)
  }
  for (const [key, value] of Object.entries(model.metadata ?? {})) {
    const entry = new Writer()
    entry.string(1, key)
    entry.string(2, value)
    writer.message(14, entry)
  }
  return writer.finish()
}

function graphOf(graph: OnnxGraph): Writer {
  const writer = new Writer()
  for (const node of graph.nodes) writer.message(1, nodeOf(node))
  writer.string(2, graph.name)
  for (const { name, tensor } of graph.initializers) writer.message(5, tensorOf(tensor, name))
  for (const input of graph.inputs) writer.message(11, valueInfoOf(input))
  for (const output of graph.outputs) writer.message(12, valueInfoOf(output))
  return writer
}

function nodeOf(node: OnnxNode): Writer {
  const writer = new Writer()
  for (const input of node.inputs) writer.string(1, input)
  for (const output of node.outputs) writer.string(2, output)
  if (node.name !== undefined) writer.string(3, node.name)
  writer.string(4, node.op)
  for (const [name, attribute] of Object.entries(node.attributes))
    writer.message(5, attributeOf(name, attribute))
  if (node.domain !== undefined) writer.string(7, node.domain)
  return writer
}

function attributeOf(name: string, attribute: Attribute): Writer {
  const writer = new Writer()
  writer.string(1, name)
  if ('float' in attribute) {
    writer.float(2, attribute.float)
    writer.int(20, attributeTypes.float)
  } else if ('int' in attribute) {
    writer.int(3, attribute.int)
    writer.int(20, attributeTypes.int)
  } else if ('string' in attribute) {
    writer.string(4, attribute.string)
    writer.int(20, attributeTypes.string)
  } else if ('tensor' in attribute) {
    writer.message(5, tensorOf(attribute.tensor))
    writer.int(20, attributeTypes.tensor)
  } else if ('graph' in attribute) {
    writer.message(6, graphOf(attribute.graph))
    writer.int(20, attributeTypes.graph)
  } else if ('floats' in attribute) {
    writer.floats(7, attribute.floats)
    writer.int(20, attributeTypes.floats)
  } else if ('ints' in attribute) {
    writer.ints(8, attribute.ints)
    writer.int(20, attributeTypes.ints)
  } else {
    for (const text of attribute.strings) writer.string(9, text)
    writer.int(20, attributeTypes.strings)
  }
  return writer
}

function tensorOf(tensor: HostTensor, name?: string): Writer {
  if (tensor.data.length !== sizeOf(tensor.shape)) {
    const where = `ONNX model: tensor ${name === undefined ? '' : `"${name}" `}${showShape(tensor.shape)}`
    throw new UsageError(`${where}: expected ${sizeOf(tensor.shape)} values, received ${tensor.data.length}`)
  }
  const writer = new Writer()
  writer.ints(1, tensor.shape)
  writer.int(2, elementTypes[tensor.dtype])
  if (name !== undefined) writer.string(8, name)
  writer.bytes(9, bytesOf(tensor))
  return writer
}

function valueInfoOf(value: ValueInfo): Writer {
  const tensorType = new Writer()
  tensorType.int(1, elementTypes[value.dtype])
  if (value.shape !== undefined) {
    const shape = new Writer()
    for (const extent of value.shape) {
      const dimension = new Writer()
      if (typeof extent === 'number') dimension.int(1, extent)
      else dimension.string(2, extent)
      shape.message(1, dimension)
    }
    tensorType.message(2, shape)
  }
  const type = new Writer()
  type.message(1, tensorType)
  const writer = new Writer()
  writer.string(1, value.name)
  writer.message(2, type)
  return writer
}
