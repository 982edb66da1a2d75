/** A matrix for each of the two spatial axes, one applied after the other. */
import { sizeOf } from '../../util/host-tensor.ts'
import type { Tensor } from '../node.ts'
import { matMul } from './reduce.ts'
import { reshape } from './shape.ts'
import type { Pair } from './window.ts'

/** Maps [H, W, ...] with `down` [H', H] applied to columns and `across` [W', W] to rows: [H', W', ...]. */
export function alongAxes(x: Tensor, down: Tensor, across: Tensor): Tensor {
  const [height, width, ...others] = x.shape as readonly [number, number, ...number[]]
  const rest = sizeOf(others)
  const [h, w] = [down.shape[0]!, across.shape[0]!]
  const rows = (maps: Tensor) => matMul(across, maps)
  const columns = (maps: Tensor, wide: number) =>
    reshape(matMul(down, reshape(maps, [height, wide * rest])), [h, wide, rest])
  const maps = reshape(x, [height, width, rest])
  const both = acrossFirst(height, h) ? columns(rows(maps), w) : rows(columns(maps, width))
  return reshape(both, [h, w, ...others])
}

/** What {@link alongAxes} costs, from [H, W] to [H', W'], for each value of the axes beyond these. */
export function alongAxesWork([height, width]: Pair, [h, w]: Pair) {
  return acrossFirst(height, h)
    ? { multiplications: height * w * (width + h), between: height * w }
    : { multiplications: h * width * (height + w), between: h * width }
}

/** The maps are fewest between the two where the axis that grows comes last. */
const acrossFirst = (height: number, rows: number) => rows >= height
