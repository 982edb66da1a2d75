/** The values of a node's attributes. */
import type { Attribute } from './model.ts'

/** An integer; `otherwise` where there is none. */
export function intOf(attribute: Attribute | undefined, otherwise: number): number {
  return attribute && 'int' in attribute ? attribute.int : otherwise
}

/** A list of integers. */
export function intsOf(attribute: Attribute | undefined): readonly number[] | undefined {
  return attribute && 'ints' in attribute ? attribute.ints : undefined
}

/** A floating-point number; `otherwise` where there is none. */
export function floatOf(attribute: Attribute | undefined, otherwise: number): number {
  return attribute && 'float' in attribute ? attribute.float : otherwise
}
