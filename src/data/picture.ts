/** Picture files as the images of a data set. */
import { extname } from 'node:path'
import sharp from 'sharp'
import { FoveaError } from '../util/errors.ts'
import { readStored } from './stored-file.ts'

export type ImageShape = readonly [height: number, width: number, channels: number]

/** The endings that are read, and what a file with such a name must hold. */
const formats: Readonly<Record<string, string>> = {
  '.png': 'png',
  '.jpg': 'jpeg',
  '.jpeg': 'jpeg',
  '.webp': 'webp',
}

/** Whether a file's name says that it is a picture of a kind that is read. */
export function isPicture(name: string): boolean {
  return Object.hasOwn(formats, extname(name).toLowerCase())
}

/** A file that was read but is not the picture that its name says. */
export class UndecodablePicture extends FoveaError {
  override name = 'UndecodablePicture'
  readonly path: string
  readonly reason: string

  constructor(path: string, reason: string) {
    super(`${path}: not an image that can be read (${reason})`)
    this.path = path
    this.reason = reason
  }
}

/**
 * Reads a picture as uint8 [height, width, channels]: turned as its EXIF says, laid on white where it is
 * transparent, fitted into the shape with its proportions kept; the rest is black.
 *
 * @throws UndecodablePicture where the content is damaged, cut, or of another format than the ending says;
 *   UnreadableFile
 */
export async function readPicture(path: string, [height, width, channels]: ImageShape): Promise<Uint8Array> {
  const bytes = await readStored(path)
  if (bytes === undefined) throw new FoveaError(`${path}: no such file`)
  const expected = formats[extname(path).toLowerCase()]
  try {
    const image = sharp(bytes)
    const { format } = await image.metadata()
    if (format !== expected)
      throw new UndecodablePicture(path, `expected ${expected} from its name, received ${format}`)
    return await image
      .autoOrient()
      .flatten({ background: 'white' })
      .resize(width, height, { fit: 'contain', background: 'black' })
      .toColourspace(channels === 1 ? 'b-w' : 'srgb')
      .raw({ depth: 'uchar' })
      .toBuffer()
  } catch (error) {
    if (error instanceof UndecodablePicture) throw error
    throw new UndecodablePicture(path, reasonOf(error as Error))
  }
}

/** Sharp's reason, in one line; where it only says that a decoder's warning counts, what such warnings are of. */
function reasonOf({ message }: Error): string {
  if (message.startsWith('Warning treated as error')) return 'damaged or cut off'
  return message.split('\n', 1)[0]!
}
