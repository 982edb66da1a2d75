/** Aligned columns. */

export interface Column {
  readonly title: string
  /** Numbers stand at the right. Default: left. */
  readonly align?: 'right'
  /** Left out where the table would be wider than the terminal. Default: false. */
  readonly optional?: boolean
  /** Colours a cell after it was padded. */
  readonly style?: (text: string) => string
}

export interface TableOptions {
  /** Columns of the terminal. */
  readonly width: number
  readonly styleTitle: (text: string) => string
}

const INDENT = '  '
const GAP = '  '

/** A table as lines; optional columns fall away from the right until it fits. */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  { width, styleTitle }: TableOptions,
): string[] {
  const widths = columns.map(({ title }, i) =>
    Math.max(title.length, ...rows.map(row => row[i]?.length ?? 0)),
  )
  const shown = columns.map((_, i) => i)
  const total = () => INDENT.length + shown.reduce((sum, i) => sum + widths[i]! + GAP.length, 0) - GAP.length
  while (total() > width) {
    const dropped = shown.findLastIndex(i => columns[i]!.optional)
    if (dropped < 0) break
    shown.splice(dropped, 1)
  }
  const line = (
    cells: readonly string[],
    styleOf: (column: Column) => ((text: string) => string) | undefined,
  ) => {
    const padded = shown.map((i, place) => {
      const text = cells[i] ?? ''
      // No spaces at the end of a line.
      const last = place === shown.length - 1
      const cell =
        columns[i]!.align === 'right' ? text.padStart(widths[i]!) : last ? text : text.padEnd(widths[i]!)
      return styleOf(columns[i]!)?.(cell) ?? cell
    })
    return (INDENT + padded.join(GAP)).trimEnd()
  }
  return [
    line(
      columns.map(({ title }) => title),
      () => styleTitle,
    ),
    ...rows.map(row => line(row, ({ style }) => style)),
  ]
}
