/**
 * Sums over the images of a minibatch, such as gradients of weights, of which each thread makes its own: of the images
 * that it took through the network, whose values lie in its cache. Updates add them up where they read them.
 */
import { intOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { LANES } from './access.ts'
import { canBe, isUniform, type Role } from './roles.ts'
import type { StepBody } from './step-body.ts'
import type { Updates } from './updates.ts'
import { isProduct } from './weights.ts'

/** Sums beyond which updates would read more than they save. */
const MOST_PARTS = 4
/** Images of a part below which a product writes more than it computes. */
const LEAST_IMAGES = 16

/** The tensor of all parts' own sums. */
export const partsOf = (name: string): string => `${name}/parts`

/** Values from one part's sums to the next's: vectors of each begin where vectors may. */
export const strideOfParts = (size: number): number => Math.ceil(size / LANES) * LANES

/** What each of those nodes, which give sums or put them together, reads of its inputs. */
export function partialSums(
  body: StepBody,
  updates: Updates,
  nodes: readonly OnnxNode[],
  parts: number,
): ReadonlyMap<OnnxNode, readonly Role[]> {
  const found = new Map<OnnxNode, readonly Role[]>()
  for (const node of parts > MOST_PARTS ? [] : nodes) {
    const roles = sumRoles(node, body, parts)
    if (roles) found.set(node, roles)
  }
  // What is computed from sums is no sum of what is computed from each.
  const isJoined = (reader: OnnxNode) => found.has(reader) && !isProduct(reader)
  const isRead = (name: string) =>
    body.sizeOf(name) > 1 &&
    !body.isAmong(body.outputs, name) &&
    body.realReadersOf(name).every(reader => updates.updates(reader) || isJoined(reader))
  const isMade = (node: OnnxNode) =>
    isProduct(node) || node.inputs.every(name => found.has(body.producerOf(body.baseOf(name))!))
  for (let before = -1; before !== found.size; ) {
    before = found.size
    for (const node of found.keys()) if (!node.outputs.every(isRead) || !isMade(node)) found.delete(node)
  }
  return found
}

function sumRoles(node: OnnxNode, body: StepBody, parts: number): readonly Role[] | undefined {
  if (node.op === 'Concat') return node.inputs.map(() => 'part')
  const roles = isProduct(node) ? rolesOfProduct(node, body) : undefined
  const fits = roles?.every((role, i) => role !== 'part' || fallsInto(node.inputs[i]!, parts, body))
  return fits ? roles : undefined
}

/** Of a product whose sums go over the rows of its right matrix, and of its left one or a row of equal numbers. */
function rolesOfProduct({ inputs, attributes }: OnnxNode, body: StepBody): readonly Role[] | undefined {
  const [left, right, ...others] = inputs as [string, string]
  const isPlain = [left, right].every(name => body.typeOf(name).shape.length === 2)
  if (!isPlain || others.length > 0 || intOf(attributes.transB, 0) === 1) return undefined
  if (intOf(attributes.transA, 0) === 1) return ['part', 'part']
  const row = body.constant(left)
  const isEven = row?.shape[0] === 1 && isUniform({ ...row, shape: [row.data.length] })
  return isEven ? ['columns', 'part'] : undefined
}

function fallsInto(name: string, parts: number, body: StepBody): boolean {
  const images = body.typeOf(name).shape[0]! / parts
  const isLong = Number.isInteger(images) && images >= LEAST_IMAGES
  return isLong && canBe(name, 'part', body)
}
