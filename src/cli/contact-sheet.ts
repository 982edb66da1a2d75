/** Images and what became of them, side by side in one picture. */
import sharp from 'sharp'
import { FoveaError, UsageError } from '../util/errors.ts'
import type { HostTensor } from '../util/host-tensor.ts'

/** Pixels on the screen that a small image is enlarged to, about. */
const TILE = 96
const GAP = 4
/** Of the whole picture: some seconds and about a gigabyte. */
const MOST_PIXELS = 1e8
/** Neither an image's black nor its white, so that padding is told from the ground. */
const GROUND = [70, 80, 110] as const

/**
 * Where the tiles of a picture lie: `images` rows of an image [H, W] and its `draws`.
 *
 * @throws UsageError where the picture would be too large
 */
export function sheetLayout(height: number, width: number, images: number, draws: number) {
  const scale = Math.max(1, Math.round(TILE / Math.max(height, width)))
  const [tileHeight, tileWidth] = [height * scale, width * scale]
  const sheetHeight = images * (tileHeight + GAP) + GAP
  const sheetWidth = (draws + 1) * (tileWidth + GAP) + 4 * GAP
  if (sheetHeight * sheetWidth > MOST_PIXELS)
    throw new UsageError(
      `augment: expected --images and --draws for a picture of at most ${MOST_PIXELS} pixels, received ${images} and ${draws}: ${sheetHeight} x ${sheetWidth} pixels`,
    )
  return { scale, tileHeight, tileWidth, sheetHeight, sheetWidth }
}

/**
 * A PNG with a row for each of `rows`: the image itself, a wider gap, then its `draws` changed forms.
 *
 * @param images uint8 [count, H, W, C], C 1 or 3
 * @param changed [draws, rows, H, W, C]; values beyond 0 to 255 are shown as these
 */
export async function contactSheet(
  { shape, data }: HostTensor,
  rows: readonly number[],
  changed: Float32Array,
  draws: number,
): Promise<Buffer> {
  const [, height, width, channels] = shape as readonly [number, number, number, number]
  if (channels !== 1 && channels !== 3)
    throw new FoveaError(`augment: expected grey or RGB images to show, received ${channels} channels`)
  const { scale, tileHeight, tileWidth, sheetHeight, sheetWidth } = sheetLayout(
    height,
    width,
    rows.length,
    draws,
  )
  const sheet = new Uint8ClampedArray(sheetHeight * sheetWidth * 3)
  for (let i = 0; i < sheet.length; i++) sheet[i] = GROUND[i % 3]!
  const paint = (values: ArrayLike<number>, from: number, top: number, left: number) => {
    for (let y = 0; y < tileHeight; y++) {
      for (let x = 0; x < tileWidth; x++) {
        const pixel = from + (Math.floor(y / scale) * width + Math.floor(x / scale)) * channels
        const at = ((top + y) * sheetWidth + left + x) * 3
        for (let c = 0; c < 3; c++) sheet[at + c] = values[pixel + Math.min(c, channels - 1)]!
      }
    }
  }
  const size = height * width * channels
  for (const [i, row] of rows.entries()) {
    const top = GAP + i * (tileHeight + GAP)
    paint(data as Uint8Array, row * size, top, GAP)
    for (let draw = 0; draw < draws; draw++)
      paint(changed, (draw * rows.length + i) * size, top, 4 * GAP + (draw + 1) * (tileWidth + GAP))
  }
  const raw = { width: sheetWidth, height: sheetHeight, channels: 3 } as const
  return await sharp(sheet, { raw }).png().toBuffer()
}
