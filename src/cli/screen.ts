/** Progress on stderr: lines that stay, and below them, on a terminal, a few that change. */
import { createLogUpdate } from 'log-update'
import { bar, type Colors, colorsOf, isLive, widthOf } from './terminal.ts'

const FRAME_MILLISECONDS = 120

export class Screen {
  readonly live: boolean
  readonly colors: Colors
  readonly #update = createLogUpdate(process.stderr)
  #paint: (() => readonly string[]) | undefined
  #timer: NodeJS.Timeout | undefined

  constructor() {
    // A terminal that does not tell its size has none to log-update, which would show nothing at all.
    this.live = isLive(process.stderr) && process.stderr.rows !== 0
    this.colors = colorsOf(process.stderr)
  }

  get width(): number {
    return widthOf(process.stderr)
  }

  get height(): number {
    return process.stderr.rows || 24
  }

  bar(fraction: number, width: number): string {
    return bar(fraction, width, this.colors)
  }

  /** A line that stays. */
  line(text = ''): void {
    if (!this.#paint) {
      process.stderr.write(`${text}\n`)
      return
    }
    this.#update.persist(text)
    this.#draw()
  }

  /** Shows what `paint` returns and keeps it up to date; on anything but a terminal nothing. */
  show(paint: () => readonly string[]): void {
    if (!this.live) return
    this.#paint = paint
    this.#timer ??= setInterval(() => this.#draw(), FRAME_MILLISECONDS).unref()
    this.#draw()
  }

  /** Takes the changing lines away and gives the cursor back. */
  hide(): void {
    if (!this.#paint) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#paint = undefined
    this.#update.clear()
    this.#update.done()
  }

  #draw(): void {
    if (this.#paint) this.#update(this.#paint().join('\n'))
  }
}
