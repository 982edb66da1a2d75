/**
 * An ONNX model as plain data: the part of the format that a program of Fovea uses.
 * Field by field after the public schema, github.com/onnx/onnx, onnx/onnx.proto.
 */
import type { DType, HostTensor } from '../util/host-tensor.ts'

export type Attribute =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] }
  | { readonly floats: readonly number[] }
  | { readonly strings: readonly string[] }
  | { readonly tensor: HostTensor }
  | { readonly graph: OnnxGraph }

export interface OnnxNode {
  readonly op: string
  /** Absent: the standard operator set. */
  readonly domain?: string
  readonly name?: string
  /** `''` stands for an optional input that is left out. */
  readonly inputs: readonly string[]
  /** `''` stands for an optional output that is left out. */
  readonly outputs: readonly string[]
  readonly attributes: Readonly<Record<string, Attribute>>
}

export interface ValueInfo {
  readonly name: string
  readonly dtype: DType
  /** A text is a named extent known only when the program runs; undefined: even the rank is unknown. */
  readonly shape: readonly (number | string)[] | undefined
}

export interface OnnxGraph {
  readonly name: string
  readonly nodes: readonly OnnxNode[]
  readonly initializers: readonly { readonly name: string; readonly tensor: HostTensor }[]
  readonly inputs: readonly ValueInfo[]
  readonly outputs: readonly ValueInfo[]
}

export interface OnnxModel {
  readonly irVersion: number
  readonly producer: string
  /** `domain` is `''` for the standard operator set. */
  readonly opsets: readonly { readonly domain: string; readonly version: number }[]
  readonly metadata?: Readonly<Record<string, string>>
  readonly graph: OnnxGraph
}
