/** Image files as a model reads them. */
import { stat } from 'node:fs/promises'
import sharp from 'sharp'
import { FoveaError, UsageError } from '../util/errors.ts'
import type { HostTensor } from '../util/host-tensor.ts'

export const inversions = ['auto', 'on', 'off'] as const
export type Inversion = (typeof inversions)[number]

export interface ModelImage {
  /** float32 [1, height, width, channels], 0 to 255. */
  readonly tensor: HostTensor
  readonly inverted: boolean
}

/**
 * Reads a picture: turned as its EXIF says, laid on white where it is transparent, fitted into
 * [height, width, channels] with its proportions kept, and the rest filled with black, the ground of the data
 * sets' images. With `auto` a grey picture whose border is light is inverted.
 *
 * @throws FoveaError naming a file that is missing or no image
 */
export async function readImage(
  path: string,
  [height, width, channels]: readonly [number, number, number],
  inversion: Inversion,
): Promise<ModelImage> {
  if (channels !== 1 && channels !== 3)
    throw new UsageError(
      `predict: expected a model for grey or RGB images, received one for ${channels} channels`,
    )
  const { data, info } = await pixels(path, height, width, channels)
  const inverted = inversion === 'on' || (inversion === 'auto' && channels === 1 && lightBorder(data, info))
  const values = new Float32Array(height * width * channels)
  const top = Math.floor((height - info.height) / 2)
  const left = Math.floor((width - info.width) / 2)
  for (let y = 0; y < info.height; y++) {
    for (let x = 0; x < info.width * channels; x++) {
      const value = data[y * info.width * channels + x]!
      values[((top + y) * width + left) * channels + x] = inverted ? 255 - value : value
    }
  }
  return { tensor: { dtype: 'float32', shape: [1, height, width, channels], data: values }, inverted }
}

async function pixels(path: string, height: number, width: number, channels: 1 | 3) {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new FoveaError(
      `${path}: ${error.code === 'ENOENT' ? 'no such file' : `cannot be read (${error.code})`}`,
    )
  })
  if (!found.isFile()) throw new FoveaError(`${path}: expected an image file, received a folder or a device`)
  try {
    return await sharp(path)
      .autoOrient()
      .flatten({ background: 'white' })
      .resize(width, height, { fit: 'inside' })
      .toColourspace(channels === 1 ? 'b-w' : 'srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true })
  } catch (error) {
    const reason = (error as Error).message.split('\n', 1)[0]!
    throw new FoveaError(`${path}: not an image that can be read (${reason})`)
  }
}

/** Whether the outermost pixels of a grey picture are lighter than middle grey on average. */
function lightBorder(data: Uint8Array, { width, height }: { width: number; height: number }): boolean {
  let sum = 0
  let count = 0
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (y > 0 && y < height - 1 && x > 0 && x < width - 1) continue
      sum += data[y * width + x]!
      count++
    }
  }
  return sum / count > 127.5
}
