/** The bytes of an .onnx file as an {@link OnnxModel}. */
import type { DType } from '../util/host-tensor.ts'
import type { Attribute, OnnxGraph, OnnxModel, OnnxNode, ValueInfo } from './model.ts'
import { attributeTypes } from './schema.ts'
import { decodeTensor, dtypeOf } from './tensor.ts'
import {
  asFloat32,
  asInteger,
  corrupt,
  type Field,
  readBytes,
  readFields,
  readFloat,
  readInteger,
  readNumbers,
  readString,
  unsupported,
} from './wire.ts'

/**
 * Graphs within graphs; real models nest two or three deep, and a damaged file must not exhaust the stack.
 */
const DEEPEST = 64

export interface DecodeOptions {
  /**
   * Read floats of 16 bits as float32, as Fovea holds them; programs that compute with them change. Default:
   * refused.
   */
  readonly widen?: boolean
}

/** Where in the nesting, and how. */
interface Place extends DecodeOptions {
  readonly depth: number
}

/**
 * Reads a model, also one that another tool wrote. Documentation texts, the shapes of inner values and
 * training information are skipped; what would change the meaning when skipped (sparse or external tensors,
 * functions, element types that Fovea does not hold) is refused with a `FoveaError`.
 */
export function decodeModel(bytes: Uint8Array, options: DecodeOptions = {}): OnnxModel {
  let irVersion: number | undefined
  let producer = ''
  let graph: OnnxGraph | undefined
  const opsets: { domain: string; version: number }[] = []
  const metadata: [string, string][] = []
  for (const field of readFields(bytes)) {
    if (field.number === 1) irVersion = readInteger(field)
    else if (field.number === 2) producer = readString(field)
    else if (field.number === 7) graph = graphOf(readBytes(field), { ...options, depth: 0 })
    else if (field.number === 8) opsets.push(opsetOf(field))
    else if (field.number === 14) metadata.push(entryOf(field))
    else if (field.number === 25) throw unsupported('functions of the model')
  }
  if (graph === undefined || irVersion === undefined) throw corrupt('it has no graph')
  return {
    irVersion,
    producer,
    opsets,
    ...(metadata.length > 0 && { metadata: Object.fromEntries(metadata) }),
    graph,
  }
}

function opsetOf(field: Field): { domain: string; version: number } {
  let domain = ''
  let version = 0
  for (const part of readFields(readBytes(field))) {
    if (part.number === 1) domain = readString(part)
    else if (part.number === 2) version = readInteger(part)
  }
  return { domain, version }
}

function entryOf(field: Field): [string, string] {
  let key = ''
  let value = ''
  for (const part of readFields(readBytes(field))) {
    if (part.number === 1) key = readString(part)
    else if (part.number === 2) value = readString(part)
  }
  return [key, value]
}

function graphOf(bytes: Uint8Array, place: Place): OnnxGraph {
  if (place.depth > DEEPEST) throw corrupt(`graphs are nested more than ${DEEPEST} deep`)
  let name = ''
  const nodes: OnnxNode[] = []
  const initializers: OnnxGraph['initializers'][number][] = []
  const inputs: ValueInfo[] = []
  const outputs: ValueInfo[] = []
  for (const field of readFields(bytes)) {
    if (field.number === 1) nodes.push(nodeOf(readBytes(field), place))
    else if (field.number === 2) name = readString(field)
    else if (field.number === 5) initializers.push(decodeTensor(readBytes(field), place))
    else if (field.number === 11) inputs.push(valueInfoOf(readBytes(field), place))
    else if (field.number === 12) outputs.push(valueInfoOf(readBytes(field), place))
    else if (field.number === 15) throw unsupported('sparse initializers')
  }
  return { name, nodes, initializers, inputs, outputs }
}

function nodeOf(bytes: Uint8Array, place: Place): OnnxNode {
  let op = ''
  let name: string | undefined
  let domain: string | undefined
  const inputs: string[] = []
  const outputs: string[] = []
  const attributes: [string, Attribute][] = []
  for (const field of readFields(bytes)) {
    if (field.number === 1) inputs.push(readString(field))
    else if (field.number === 2) outputs.push(readString(field))
    else if (field.number === 3) name = readString(field)
    else if (field.number === 4) op = readString(field)
    else if (field.number === 5) attributes.push(attributeOf(readBytes(field), place))
    else if (field.number === 7) domain = readString(field)
  }
  if (op === '') throw corrupt('a node has no operator')
  return {
    op,
    ...(domain !== undefined && { domain }),
    ...(name !== undefined && { name }),
    inputs,
    outputs,
    attributes: Object.fromEntries(attributes),
  }
}

type AttributeKind = keyof typeof attributeTypes

const kindOfType = new Map<number, AttributeKind>(
  Object.entries(attributeTypes).map(([kind, type]) => [type, kind as AttributeKind]),
)
/** Files of IR version 1 leave the type out: the content tells it. */
const kindOfField = new Map<number, AttributeKind>([
  [2, 'float'],
  [3, 'int'],
  [4, 'string'],
  [5, 'tensor'],
  [6, 'graph'],
  [7, 'floats'],
  [8, 'ints'],
  [9, 'strings'],
])

function attributeOf(bytes: Uint8Array, place: Place): [string, Attribute] {
  let name = ''
  let type: number | undefined
  let kind: AttributeKind | undefined
  const contents: Field[] = []
  for (const field of readFields(bytes)) {
    if (field.number === 1) name = readString(field)
    else if (field.number === 20) type = readInteger(field)
    else if (kindOfField.has(field.number)) {
      kind = kindOfField.get(field.number)
      contents.push(field)
    }
  }
  if (type !== undefined && type !== 0) kind = kindOfType.get(type)
  if (kind === undefined) throw unsupported(`attribute "${name}" of type ${type ?? 'unknown'}`)
  const own = contents.filter(field => kindOfField.get(field.number) === kind)
  return [name, contentOf(kind, own, place, name)]
}

function contentOf(kind: AttributeKind, fields: readonly Field[], place: Place, name: string): Attribute {
  if (kind === 'ints') return { ints: fields.flatMap(field => readNumbers(field, 'varint').map(asInteger)) }
  if (kind === 'floats')
    return { floats: fields.flatMap(field => readNumbers(field, 'fixed32').map(asFloat32)) }
  if (kind === 'strings') return { strings: fields.map(readString) }
  // As everywhere in protobuf, the last one counts.
  const field = fields.at(-1)
  // A writer may leave out a zero or an empty text.
  if (kind === 'int') return { int: field === undefined ? 0 : readInteger(field) }
  if (kind === 'float') return { float: field === undefined ? 0 : readFloat(field) }
  if (kind === 'string') return { string: field === undefined ? '' : readString(field) }
  if (field === undefined) throw corrupt(`attribute "${name}" has no content`)
  if (kind === 'tensor') return { tensor: decodeTensor(readBytes(field), place).tensor }
  return { graph: graphOf(readBytes(field), { ...place, depth: place.depth + 1 }) }
}

function valueInfoOf(bytes: Uint8Array, { widen }: Place): ValueInfo {
  let name = ''
  let type: Uint8Array | undefined
  for (const field of readFields(bytes)) {
    if (field.number === 1) name = readString(field)
    else if (field.number === 2) type = readBytes(field)
  }
  let tensorType: Uint8Array | undefined
  for (const field of readFields(type ?? new Uint8Array(0)))
    if (field.number === 1) tensorType = readBytes(field)
  if (tensorType === undefined) throw unsupported(`value "${name}", whose type is not a tensor's`)

  let dtype: DType | undefined
  let shape: (number | string)[] | undefined
  for (const field of readFields(tensorType)) {
    if (field.number === 1) dtype = dtypeOf(readInteger(field), `value "${name}"`, widen)
    else if (field.number === 2) shape = shapeOf(readBytes(field))
  }
  if (dtype === undefined) throw corrupt(`value "${name}" has no element type`)
  return { name, dtype, shape }
}

function shapeOf(bytes: Uint8Array): (number | string)[] {
  const shape: (number | string)[] = []
  for (const field of readFields(bytes)) {
    if (field.number !== 1) continue
    // A dimension with neither a value nor a name is unknown, and has no name.
    let extent: number | string = ''
    for (const part of readFields(readBytes(field))) {
      if (part.number === 1) extent = readInteger(part)
      else if (part.number === 2) extent = readString(part)
    }
    shape.push(extent)
  }
  return shape
}
