/**
 * How a convolution is computed: which forms there are, what each costs by its shape, and which is taken. A
 * new form is one row of `candidates`.
 */
import { dftWork } from './conv-dft.ts'
import { winogradTiles, winogradWork } from './conv-winograd.ts'
import {
  type ConvMethod,
  type ConvWork,
  type Extents,
  hasPadding,
  type Pair,
  type WindowAttributes,
  windowCounts,
} from './window.ts'

export type ConvForm =
  | { readonly form: 'pointwise' | 'few-channels' | 'dft' | 'gather' }
  | { readonly form: 'winograd' /** Outputs of a tile along each axis. */; readonly tile: Pair }

/** A form that a convolution could take; without work it is taken where it is possible. */
interface Candidate {
  readonly form: ConvForm
  readonly method: ConvMethod
  readonly work?: ConvWork
}

/**
 * The form of a convolution of maps [H, W, N, C] to K channels: of those of the window's method, or of all
 * where none of that method is possible, the fastest on a CPU by a cost that was fitted to measurements.
 */
export function formOf(x: Extents, k: number, window: WindowAttributes): ConvForm {
  const possible = candidates(x, k, window)
  const asked = possible.filter(({ method }) => method === window.method)
  const [first, ...others] = asked.length > 0 ? asked : possible
  if (!first!.work) return first!.form
  return others.reduce((best, other) => (cost(other.work) < cost(best.work) ? other : best), first!).form
}

/**
 * A 1x1 kernel is one matrix product; few input channels gather whole rows of minibatch values; with strides
 * of 1 maps can be transformed; gathering rows of channels is always possible.
 */
function candidates([h, w, n, c]: Extents, k: number, window: WindowAttributes): Candidate[] {
  const { kernel, strides, dilation } = window
  const dense = [...strides, ...dilation].every(step => step === 1)
  const taps = kernel[0] * kernel[1]
  // Nothing is gathered there, and nothing transformed.
  if (taps === 1 && dense && !hasPadding(window)) return [{ form: { form: 'pointwise' }, method: 'gather' }]
  const [rows, columns] = windowCounts([h, w], window)
  const gathered = rows * columns * n * taps * c
  return [
    ...(c <= 4 && k >= c ? [{ form: { form: 'few-channels' }, method: 'gather' } as const] : []),
    {
      form: { form: 'gather' },
      method: 'gather',
      // Twice, because a gather reads and writes in short rows. Two of the three passes write a kernel.
      work: { whole: gathered * k, batched: 0, values: 2 * gathered + (2 / 3) * taps * c * k },
    },
    ...(taps > 1 && dense
      ? [{ form: { form: 'dft' }, method: 'dft', work: dftWork([h, w, n, c], k, window) } as const]
      : []),
    ...winogradTiles(window).map(tile => ({
      form: { form: 'winograd', tile } as const,
      method: 'winograd' as const,
      work: winogradWork([h, w, n, c], k, window, tile),
    })),
  ]
}

/** Time in multiplications of a large matrix product, fitted to measurements on a CPU with AVX-512. */
const cost = (work: ConvWork | undefined): number =>
  work ? work.whole + 2 * work.batched + 33 * work.values : Number.POSITIVE_INFINITY
