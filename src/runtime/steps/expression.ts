/** The steps of a kernel, found backwards from what it writes: each value at the places where it is read. */
import { intOf, intsOf } from '../../onnx/attributes.ts'
import type { OnnxNode } from '../../onnx/model.ts'
import { normalizeAxis } from '../../util/broadcast.ts'
import { type Shape, sizeOf } from '../../util/host-tensor.ts'
import {
  type Access,
  accessOf,
  extentOf,
  indicesOf,
  moved,
  NeedsParts,
  NeedsSplit,
  NeedsUnrolling,
  Unfit,
  varyingLoop,
} from './access.ts'
import {
  isElementwise,
  type KernelStep,
  type Operand,
  type Operation,
  operandsOf,
  stepsOf,
} from './kernel.ts'
import type { StepBody } from './step-body.ts'
import { isProduct, termsOf, weightsOf } from './weights.ts'

/** More operations than this in one turn are more code than a processor keeps at hand. */
const MOST_STEPS = 2500

/** Operators that only move values: where a kernel reads what they give, it reads what they are given. */
const moves: ReadonlySet<string> = new Set(['Tile', 'Expand', 'Split', 'Slice', 'Concat', 'Pad'])

/** Whether a node is one of those, or a transpose that leaves rows whole. */
export function isMove({ op, attributes }: OnnxNode): boolean {
  const axes = intsOf(attributes.perm) ?? []
  return moves.has(op) || (op === 'Transpose' && axes.length > 0 && axes.at(-1) === axes.length - 1)
}

export class Expression {
  readonly steps: KernelStep[] = []
  /** What is read from memory. */
  readonly leaves = new Set<string>()
  /** What is computed on the way. */
  readonly inner = new Set<string>()
  readonly #body: StepBody
  readonly #isLeaf: (name: string) => boolean
  readonly #loops: readonly number[]
  readonly #known = new Map<string, Operand>()

  /** @param isLeaf whether a value is in memory when the kernel runs */
  constructor(body: StepBody, isLeaf: (name: string) => boolean, loops: readonly number[]) {
    this.#body = body
    this.#isLeaf = isLeaf
    this.#loops = loops
  }

  /**
   * The step that computes `name` at a place, even if it is a leaf.
   *
   * @throws NeedsLoops where other loops are needed
   * @throws Unfit where no loops will do
   */
  computedAt(name: string, access: Access): number {
    return this.#stepOf(this.#computed(this.#body.producerOf(name)!, name, access))
  }

  /** The step that has the value of `name` at a place; throws as {@link computedAt}. */
  readAt(name: string, access: Access): number {
    return this.#stepOf(this.#at(name, access))
  }

  /** The step that adds two others up. */
  sumOf(a: number, b: number): number {
    return this.#add([{ op: 'Add', operands: [{ step: a }, { step: b }] }])
  }

  /** The steps that have the columns of the four rows that others have. */
  columnsOf([a, b, c, d]: readonly [number, number, number, number]): number[] {
    const both = (op: Operation, x: number, y: number) =>
      this.#add([{ op, operands: [{ step: x }, { step: y }] }])
    return (['LowValues', 'HighValues'] as const).flatMap(half => {
      const [first, last] = [both(half, a, b), both(half, c, d)]
      return [both('LowPairs', first, last), both('HighPairs', first, last)]
    })
  }

  #stepOf(operand: Operand): number {
    return 'step' in operand ? operand.step : this.#add([{ op: 'Identity', operands: [operand] }])
  }

  #at(name: string, access: Access): Operand {
    const constant = this.#body.scalarConstant(name)
    if (constant !== undefined) return { constant }
    const base = this.#body.baseOf(name)
    const key = `${access.offset} ${access.lanes} ${access.strides.join()} ${base}`
    const known = this.#known.get(key) ?? this.#found(base, access)
    this.#known.set(key, known)
    return known
  }

  #found(base: string, access: Access): Operand {
    const node = this.#body.producerOf(base)
    if (!this.#isLeaf(base)) {
      if (node) {
        this.inner.add(base)
        return this.#computed(node, base, access)
      }
      throw new Unfit(`${base} is not in the kernels' memory`)
    }
    if (access.lanes > 1) throw new Unfit(`${base}: values that are read together lie apart`)
    this.leaves.add(base)
    // One step, so that what is used twice is read once.
    return { step: this.#add([{ op: 'Identity', operands: [{ tensor: base, at: access }] }]) }
  }

  #add(steps: readonly KernelStep[]): number {
    this.steps.push(...steps)
    if (this.steps.length > MOST_STEPS) throw new Unfit(`more than ${MOST_STEPS} operations`)
    return this.steps.length - 1
  }

  #computed(node: OnnxNode, name: string, access: Access): Operand {
    try {
      return this.#computedBy(node, name, access)
    } catch (error) {
      if (error instanceof Unfit) error.node ??= node
      throw error
    }
  }

  #computedBy(node: OnnxNode, name: string, access: Access): Operand {
    if (isProduct(node)) return this.#weighted(node, name, access)
    if (isMove(node)) return this.#moved(node, name, access)
    if (!isElementwise(node)) throw new Unfit(`${node.op} is no operation of kernels`)
    const { shape } = this.#body.typeOf(name)
    const operands = operandsOf(node).map(input => this.#operand(input, access, shape))
    return { step: this.#add(stepsOf(node, operands, this.steps.length)) }
  }

  /** `input` for a place of a value of shape `shape`, to which it is broadcast. */
  #operand(input: string, access: Access, shape: Shape): Operand {
    const row = this.#repeatedRow(input)
    if (row === undefined) return this.#at(input, this.#broadcast(access, shape, input))
    // By its own length: the repeated row's need not be one of loops over the value's axes.
    const columns = this.#body.sizeOf(row)
    const [, column] = indicesOf(access, [sizeOf(shape) / columns, columns], this.#loops)
    return this.#at(row, column!)
  }

  /** The row that `input`, a row itself, repeats; undefined: it is no such row. */
  #repeatedRow(input: string): string | undefined {
    const base = this.#body.baseOf(input)
    const node = this.#body.producerOf(base)
    if (node?.op !== 'Tile' || this.#isLeaf(base)) return undefined
    const [row] = node.inputs as [string]
    const isRow = (name: string) => this.#body.typeOf(name).shape.at(-1) === this.#body.sizeOf(name)
    if (!isRow(row) || !isRow(input)) return undefined
    this.inner.add(base)
    return row
  }

  /** Where `input` is read for a place of a value of shape `shape`, of which each extent of `input` is one, or 1. */
  #broadcast(access: Access, shape: Shape, input: string): Access {
    const { shape: own } = this.#body.typeOf(input)
    if (sizeOf(own) === sizeOf(shape)) return access
    if (sizeOf(own) === 1) return this.#still
    const indices = indicesOf(access, shape, this.#loops).slice(shape.length - own.length)
    return accessOf(
      indices.map((index, axis) => (own[axis] === 1 ? this.#still : index)),
      own,
      this.#loops,
    )
  }

  /** The first value, wherever the loops are. */
  get #still(): Access {
    return accessOf([], [], this.#loops)
  }

  #moved(node: OnnxNode, name: string, access: Access): Operand {
    const [input] = node.inputs as [string]
    const { shape } = this.#body.typeOf(name)
    const { shape: from } = this.#body.typeOf(input)
    if (node.op === 'Expand') return this.#at(input, this.#broadcast(access, shape, input))
    const indices = indicesOf(access, shape, this.#loops)
    const read = (source: string, changed: readonly Access[], of: Shape) =>
      this.#at(source, accessOf(changed, of, this.#loops))
    switch (node.op) {
      case 'Tile':
        return read(
          input,
          // Along an axis, the place in one of the copies.
          indices.map(
            (index, axis) => indicesOf(index, [shape[axis]! / from[axis]!, from[axis]!], this.#loops)[1]!,
          ),
          from,
        )
      case 'Split': {
        const axis = this.#axisOf(node, shape)
        const parts = this.#integers(node, 1)
        const start = parts.slice(0, node.outputs.indexOf(name)).reduce((sum, extent) => sum + extent, 0)
        return read(input, indices.with(axis, moved(indices[axis]!, start)), from)
      }
      case 'Transpose': {
        const axes = intsOf(node.attributes.perm) ?? []
        return read(
          input,
          from.map((_, axis) => indices[axes.indexOf(axis)]!),
          from,
        )
      }
      case 'Pad':
        return this.#padded(node, indices, from)
      case 'Slice':
        return read(input, this.#sliced(node, indices, from), from)
      default:
        return this.#concatenated(node, indices, shape)
    }
  }

  #sliced(node: OnnxNode, indices: readonly Access[], from: Shape): readonly Access[] {
    const starts = this.#integers(node, 1)
    const axes = node.inputs[3] ? this.#integers(node, 3) : starts.map((_, i) => i)
    const steps = node.inputs[4] ? this.#integers(node, 4) : starts.map(() => 1)
    return axes.reduce<readonly Access[]>((sliced, given, i) => {
      const axis = normalizeAxis(node.op, given, from.length)
      const start = starts[i]! < 0 ? starts[i]! + from[axis]! : starts[i]!
      const { offset, strides, lanes } = sliced[axis]!
      const step = steps[i]!
      if (step < 0) throw new Unfit('Slice backwards')
      const index = {
        offset: start + step * offset,
        strides: strides.map(stride => stride * step),
        lanes: lanes * step,
      }
      return sliced.with(axis, index)
    }, indices)
  }

  /** A constant around a value. */
  #padded(node: OnnxNode, indices: readonly Access[], from: Shape): Operand {
    const counts = this.#integers(node, 1)
    const filler = node.inputs[2] ? this.#body.scalarConstant(node.inputs[2]) : 0
    const isPlain = Object.keys(node.attributes).length === 0 && counts.length === 2 * from.length
    if (!isPlain || filler === undefined || counts.some(count => count < 0))
      throw new Unfit('Pad by no constant')
    for (const [axis, extent] of from.entries()) {
      const index = indices[axis]!
      const [begin, end] = [counts[axis]!, counts[axis]! + extent]
      const last = extentOf(index, this.#loops) - 1
      if (last < begin || index.offset >= end) return { constant: filler }
      if (index.offset < begin || last >= end) throw this.#crossing(index, [begin, end])
    }
    const own = indices.map((index, axis) => moved(index, -counts[axis]!))
    return this.#at(node.inputs[0]!, accessOf(own, from, this.#loops))
  }

  /** What keeps an index on one side of each bound. */
  #crossing(index: Access, bounds: readonly number[]): Error {
    const loop = varyingLoop(index)
    if (loop === undefined) return new Unfit('four values, of which some are within and some are not')
    const stride = index.strides[loop]!
    const turns = this.#loops[loop]!
    const inTurn = extentOf({ ...index, strides: index.strides.with(loop, 0) }, this.#loops) - index.offset
    // A turn in which a bound lies is a part by itself.
    const ends = bounds
      .map(bound => (bound - index.offset) / stride)
      .flatMap(t => [Math.floor(t), Math.ceil(t)])
    const inside = [...new Set(ends)].filter(turn => turn > 0 && turn < turns).sort((a, b) => a - b)
    return inTurn <= stride && inside.length > 0 ? new NeedsParts(loop, inside) : new NeedsUnrolling(loop)
  }

  #concatenated(node: OnnxNode, indices: readonly Access[], shape: Shape): Operand {
    const axis = this.#axisOf(node, shape)
    const index = indices[axis]!
    let start = 0
    for (const part of node.inputs) {
      const { shape: own } = this.#body.typeOf(part)
      const extent = own[axis]!
      const last = extentOf(index, this.#loops) - 1
      if (index.offset < start + extent && last < start + extent)
        return this.#at(part, accessOf(indices.with(axis, moved(index, -start)), own, this.#loops))
      if (index.offset < start + extent) throw this.#divided(index, extent)
      start += extent
    }
    throw new Unfit('Concat: beyond its end')
  }

  /** What keeps an index within parts of this extent. */
  #divided(index: Access, extent: number): Error {
    const loop = varyingLoop(index)
    if (loop === undefined) return new Unfit('Concat: four values of several parts')
    const stride = index.strides[loop]!
    const turns = extent / stride
    const divides = Number.isInteger(turns) && turns > 1 && this.#loops[loop]! % turns === 0
    return divides && turns < this.#loops[loop]! ? new NeedsSplit(loop, turns) : new NeedsUnrolling(loop)
  }

  /** A row of a constant matrix, most of which is zeros, times a matrix. */
  #weighted(node: OnnxNode, name: string, access: Access): Operand {
    const right = node.inputs[1]!
    const matrix = weightsOf(node, this.#body)
    if (!matrix) throw new Unfit(`${node.op} of two values`)
    const { shape } = this.#body.typeOf(name)
    const { shape: from } = this.#body.typeOf(right)
    const indices = indicesOf(access, shape, this.#loops)
    const axis = shape.length - 2
    let sum: Operand | undefined
    for (const { weight, column } of termsOf(matrix, indices[axis]!, this.#loops)) {
      const value = this.#at(right, accessOf(indices.with(axis, column), from, this.#loops))
      const factor = { constant: weight }
      const step: KernelStep = sum
        ? { op: 'MultiplyAdd', operands: [value, factor, sum] }
        : { op: 'Mul', operands: [value, factor] }
      sum = { step: this.#add([step]) }
    }
    return sum ?? { constant: 0 }
  }

  #axisOf({ op, attributes }: OnnxNode, { length }: Shape): number {
    return normalizeAxis(op, intOf(attributes.axis, 0), length)
  }

  #integers(node: OnnxNode, index: number): readonly number[] {
    const integers = this.#body.numbersOf(node.inputs[index]!)
    if (!integers) throw new Unfit(`${node.op}: its extents are not constant`)
    return integers
  }
}
