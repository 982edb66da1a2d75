/**
 * Numbers that ONNX gives to element types and attribute types: onnx.proto, TensorProto and AttributeProto.
 */
import type { DType } from '../util/host-tensor.ts'

export const elementTypes: Readonly<Record<DType, number>> = {
  float32: 1,
  uint8: 2,
  int32: 6,
  int64: 7,
  bool: 9,
  float64: 11,
  uint32: 12,
}

export const attributeTypes = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
} as const
