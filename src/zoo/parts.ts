/** What several networks of the zoo have in common. */
import { type Connection, connect, type DenseOptions, dense, type Layer, rescaling } from '../nn/index.ts'

/** Pixel values to 0..1. */
export const unitPixels = () => rescaling({ scale: 1 / 255 })

/** Pixel values to -1..1. */
export const centredPixels = () => rescaling({ scale: 1 / 127.5, offset: -1 })

/** Layers one after the other, from a place in a network on. */
export function chain(from: Connection, layers: readonly Layer[]): Connection {
  return layers.reduce((x, layer) => connect(layer, x), from)
}

/** Dense layers `hidden1`, `hidden2`, ..., each with `after` behind it. Default: relu, nothing behind. */
export function hiddenLayers(
  widths: readonly number[],
  options: Omit<DenseOptions, 'name' | 'units'> = {},
  after: readonly Layer[] = [],
): Layer[] {
  return widths.flatMap((units, i) => [
    dense({ activation: 'relu', ...options, name: `hidden${i + 1}`, units }),
    ...after,
  ])
}
