import { bytesOf, type HostTensor } from '../src/util/host-tensor.ts'

/** Whether tensors are of one type and have the same bytes. */
export const sameBits = (a: HostTensor, b: HostTensor): boolean =>
  a.dtype === b.dtype && Buffer.compare(bytesOf(a), bytesOf(b)) === 0
