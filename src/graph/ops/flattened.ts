/** The product of flattened feature maps and a matrix, as a dense layer after convolutions makes it. */
import { sizeOf } from '../../util/host-tensor.ts'
import { apply, type OpDefinition, type Tensor } from '../node.ts'
import { BatchOutward, batchOutward, mapExtents } from './batch-axis.ts'
import { MatMul, matMul, reduceSum } from './reduce.ts'
import { Reshape, reshape, transpose } from './shape.ts'

// y = x w for maps [H, W, N, C] that were flattened to x [N, H W C]: dx = dy w', dw = x' dy, as of any product.
// The sum over H is apart: each row of the maps meets its own rows of w. Threads share such products by rows of w in
// both directions, as they share w's update; of one product each would read half of every row, and half of that from
// another's cache.
export const FlattenedMatMul: OpDefinition = {
  op: 'FlattenedMatMul',
  shape: inputs => MatMul.shape(inputs, { transA: false, transB: false }),
  gradient({ inputs: [x, w] }, [dy]) {
    const { maps, columns, rows } = byRows(x!, w!)
    const [h, width, n, c] = mapExtents('FlattenedMatMul', maps)
    const dys = reshape(dy!, [1, ...dy!.shape])
    const dcolumns = matMul(dys, rows, { transB: true })
    const dmaps = transpose(reshape(dcolumns, [h, n, width, c]), [0, 2, 1, 3])
    const dw = matMul(columns, dys, { transA: true })
    return [reshape(batchOutward(dmaps), x!.shape), reshape(dw, w!.shape)]
  },
  expand({ inputs: [x, w], outputs: [y] }) {
    const { columns, rows } = byRows(x!, w!)
    return reshape(reduceSum(matMul(columns, rows), [0]), y!.shape)
  },
  onnx: (lowering, inputs) => lowering.emit('MatMul', inputs),
}

/** x [N, H W C] as [H, N, W C] and w [H W C, K] as [H, W C, K]. */
function byRows(x: Tensor, w: Tensor): { maps: Tensor; columns: Tensor; rows: Tensor } {
  const maps = mapsOf(x)
  if (!maps) throw new Error('FlattenedMatMul: expected flattened maps')
  const [h, width, n, c] = mapExtents('FlattenedMatMul', maps)
  return {
    maps,
    columns: reshape(transpose(maps, [0, 2, 1, 3]), [h, n, width * c]),
    rows: reshape(w, [h, width * c, w.shape[1]!]),
  }
}

/** The maps [H, W, N, C] that were flattened to x. */
function mapsOf({ node }: Tensor): Tensor | undefined {
  const [from] = node.inputs
  return node.op === Reshape && from?.node.op === BatchOutward ? from.node.inputs[0] : undefined
}

/** Below this a product is over before it matters where its weights lie. */
const LEAST_WEIGHTS = 65_536

/** x w for vectors x [N, F] and a matrix w [F, K]. */
export function vectorsTimes(x: Tensor, w: Tensor): Tensor {
  const maps = mapsOf(x)
  if (!maps) return matMul(x, w)
  const [h, width, n, c] = mapExtents('vectorsTimes', maps)
  // The partial results, [H, N, K], must be few beside the weights.
  const pays = h > 1 && 2 * n <= width * c && sizeOf(w.shape) >= LEAST_WEIGHTS
  return pays ? apply(FlattenedMatMul, [x, w]) : matMul(x, w)
}
