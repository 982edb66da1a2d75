/** What the terminal can show. */
import type { WriteStream } from 'node:tty'
import picocolors from 'picocolors'

export type Colors = ReturnType<typeof picocolors.createColors>

/** Lines can be drawn again in place: a terminal, and not one that knows no escape codes. */
export function isLive(stream: WriteStream): boolean {
  return stream.isTTY === true && process.env.TERM !== 'dumb'
}

/** Colours on a terminal only, and none where NO_COLOR is set (no-color.org). */
export function colorsOf(stream: WriteStream): Colors {
  return picocolors.createColors(isLive(stream) && !process.env.NO_COLOR)
}

/** Columns of a terminal; where the output goes elsewhere, nothing has to be narrow. */
export function widthOf(stream: WriteStream): number {
  return stream.isTTY ? stream.columns || 80 : Number.POSITIVE_INFINITY
}

/** `━━━━━━━━━╸──────` */
export function bar(fraction: number, width: number, colors: Colors): string {
  const done = filled(fraction, width)
  return colors.cyan(done) + colors.dim('─'.repeat(width - done.length))
}

/** `━━━━━━━━━╸`, of at most `width` characters. */
export function filled(fraction: number, width: number): string {
  const halves = Math.round(Math.min(1, Math.max(0, fraction)) * width * 2)
  return '━'.repeat(Math.floor(halves / 2)) + (halves % 2 === 1 ? '╸' : '')
}
