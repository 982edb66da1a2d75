/** Names of ONNX nodes that tell what they are for: `backward/conv2d_1/MatMul_12`. */
import type { Origin, Pass } from '../graph/node.ts'

/** Characters that ONNX Runtime's profiler writes as they are into JSON, and the sign that stands for them. */
const UNSAFE = /["\\%\p{Cc}]/gu

/** The name of the node `called`, such as `MatMul_12`, of this origin. */
export function nameWithOrigin({ pass, layer }: Origin, called: string): string {
  return `${pass}/${layer.replaceAll(UNSAFE, encodeURIComponent)}/${called}`
}

/**
 * What a node is for, by its name; also where ONNX Runtime has fused it with others, which makes it `fused
 * forward/dense_1/MatMul_3/MatMulAddFusion`, or `forward/dense_1/Reshape_4_new_reshape`. Undefined for the names
 * of nodes that ONNX Runtime inserted.
 */
export function originOfName(name: string): Origin | undefined {
  const parts = /^(?:fused )?(forward|backward|update)\/(.+)\/[A-Z][A-Za-z]*_\d+(?:[/_].*)?$/.exec(name)
  if (!parts) return undefined
  const layer = parts[2]!.replaceAll(/(?:%[0-9A-F]{2})+/g, decodeURIComponent)
  return { pass: parts[1] as Pass, layer }
}
