/** What every data set looks like once it is loaded, whatever file format it came from. */
import type { HostTensor } from '../util/host-tensor.ts'

/** Images with the class of each. */
export interface LabelledImages {
  readonly count: number
  /** uint8 [count, height, width, channels], 0 .. 255. */
  readonly images: HostTensor
  /** int32 [count], each an index into the data set's `classes`. */
  readonly labels: HostTensor
}

export interface DataSet {
  /** The name that the command line and studies use, as `fashion-mnist`. */
  readonly name: string
  /** The name for people, as `Fashion-MNIST`. */
  readonly title: string
  /** [height, width, channels]. */
  readonly imageShape: readonly [number, number, number]
  /** The classes' names; a label is an index into them. */
  readonly classes: readonly string[]
  readonly train: LabelledImages
  readonly test: LabelledImages
  /**
   * SHA-256 over the decoded content: for train images, train labels, test images and test labels in this
   * order, one line of JSON with dtype and shape, then the values' bytes (little-endian). Independent of file
   * format and place.
   */
  readonly hash: string
  /** Where this copy came from, for people; says so when a file differs from the published one. */
  readonly source: string
  /** How this copy differs from the published one, where it does. */
  readonly notes?: readonly string[]
  /** Files that were left out because they cannot be decoded, where that was asked for and there are any. */
  readonly skipped?: readonly SkippedFile[]
}

/** A file that could not be decoded, and why. */
export interface SkippedFile {
  readonly file: string
  readonly reason: string
}

/** What is known of a data set before it is loaded. */
export interface DataSetDescription {
  readonly name: string
  readonly title: string
  readonly imageShape: readonly [number, number, number]
  readonly classCount: number
  /** Number of training images. */
  readonly train: number
  /** Number of test images. */
  readonly test: number
  /** Who publishes it, and where. */
  readonly source: string
  readonly licence: string
}

/** One step of a download. */
export interface LoadProgress {
  /** `download`: from a publisher's address; `apt`: Debian's package, by apt-get. */
  readonly phase: 'download' | 'apt'
  readonly file: string
  /** Bytes so far. */
  readonly received: number
  /** Bytes in all, where the server tells. */
  readonly total: number | undefined
  readonly url: string
}

export interface LoadOptions {
  /**
   * A folder that holds the data set's files as published or unpacked. No other source is asked then.
   */
  readonly folder?: string
  /** Where downloads are kept; default `$XDG_CACHE_HOME/fovea` or `~/.cache/fovea`. */
  readonly cacheDir?: string
  /**
   * Whether pictures of a folder that cannot be decoded are left out, instead of being an error; default
   * false.
   */
  readonly skipUndecodable?: boolean
  /** Called while something is downloaded. */
  readonly progress?: (event: LoadProgress) => void
  /** Where Debian's package would have put the files; default its usual folder. */
  readonly debianDir?: string
  /** Base addresses to download from, in this order; default the data set's own. Empty: no download. */
  readonly mirrors?: readonly string[]
  /** Whether to ask apt-get for Debian's package when all else failed; default true. */
  readonly apt?: boolean
  /**
   * Milliseconds within which a mirror must answer at all; default 4,000. All mirrors are tried at the same
   * time.
   */
  readonly connectTimeout?: number
  /** Milliseconds without a byte after which a download counts as cut; default 10,000. */
  readonly idleTimeout?: number
}
