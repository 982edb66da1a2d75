/** HDF5 files as plain data: https://support.hdfgroup.org/documentation/hdf5/latest/_s_p_e_c.html. */
import { Worker } from 'node:worker_threads'
import { FoveaError } from '../util/errors.ts'
import type { Shape } from '../util/host-tensor.ts'

/** What the thread is asked for. */
export interface Hdf5Request {
  readonly path: string
  /** Paths of groups and datasets that are not read. */
  readonly leaveOut: readonly string[]
}

export interface Hdf5Group {
  /** `model_weights/conv2d`; the root's is empty. */
  readonly path: string
  /** Those that hold texts. */
  readonly attributes: Readonly<Record<string, readonly string[]>>
}

export interface Hdf5Dataset {
  readonly path: string
  readonly shape: Shape
  /** Undefined where it holds no little-endian numbers; its bytes are not read then. */
  readonly kind: 'integer' | 'float' | undefined
  /** Bytes of an element. */
  readonly size: number
  readonly bytes: Uint8Array
}

export interface Hdf5Content {
  readonly groups: readonly Hdf5Group[]
  readonly datasets: readonly Hdf5Dataset[]
}

export type Hdf5Answer = Hdf5Content | { readonly failure: string }

/**
 * All groups and datasets of a file.
 *
 * @param where names the file in errors
 * @throws FoveaError where the file is damaged
 */
export async function readHdf5(request: Hdf5Request, where: string): Promise<Hdf5Content> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const worker = new Worker(new URL(`./hdf5-worker.${extension}`, import.meta.url), {
    workerData: request,
    execArgv: [],
    // What the HDF5 library prints when it gives up tells nothing that the message does not.
    stdout: true,
    stderr: true,
  })
  try {
    const answer = await new Promise<Hdf5Answer>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
      worker.once('exit', code => reject(new Error(`the reader ended with code ${code}`)))
    })
    if (!('failure' in answer)) return answer
    throw new FoveaError(`${where}: ${answer.failure}: the file is damaged, or not an HDF5 file`)
  } catch (error) {
    if (error instanceof FoveaError) throw error
    throw new FoveaError(`${where}: cannot be read as HDF5 (${(error as Error).message.split('\n', 1)[0]})`)
  } finally {
    await worker.terminate()
  }
}
