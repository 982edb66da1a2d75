/** Reading images at places between their pixels. */
import { UsageError } from '../../util/errors.ts'
import { showShape } from '../../util/host-tensor.ts'
import { apply, type OpDefinition, type Tensor } from '../node.ts'

// y[n, c, p] = x[n, c] at grid[n, p], bilinear between the centres of the four nearest pixels, 0 outside the
// image. The grid's (x, y) run from -1 at the left (upper) edge of the first pixel to 1 at the right (lower)
// edge of the last.
export const GridSample: OpDefinition = {
  op: 'GridSample',
  shape([x, grid]) {
    const [n, c] = x!.shape
    const fits = x!.shape.length === 4 && grid!.shape.length === 4 && grid!.shape[3] === 2
    if (!fits || grid!.shape[0] !== n)
      throw new UsageError(
        `GridSample: expected images [N, C, H, W] and places [N, H', W', 2], received ${showShape(x!.shape)} and ${showShape(grid!.shape)}`,
      )
    return { dtype: x!.dtype, shape: [n!, c!, grid!.shape[1]!, grid!.shape[2]!] }
  },
  gradient: { none: 'the images of the data set are not differentiated' },
  onnx: (lowering, inputs) =>
    lowering.emit('GridSample', inputs, {
      mode: { string: 'bilinear' },
      padding_mode: { string: 'zeros' },
      align_corners: { int: 0 },
    }),
}

/**
 * `images` [N, C, H, W] at the places `grid` [N, H', W', 2] of (x, y), -1 to 1 from edge to edge:
 * [N, C, H', W'].
 */
export function gridSample(images: Tensor, grid: Tensor): Tensor {
  return apply(GridSample, [images, grid])
}
