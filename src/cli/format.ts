/** Numbers as people read them. */

/** `11,203` */
export function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

/** A fraction as `90.12` (percent, without its sign). */
export function hundredths(fraction: number): string {
  return (fraction * 100).toFixed(2)
}

/** A fraction as `90.12 %`. */
export function percent(fraction: number): string {
  return `${hundredths(fraction)} %`
}

/** A loss; the exponential form where four decimals would not show it. */
export function lossText(loss: number): string {
  return loss >= 1000 || (loss > 0 && loss < 0.0001) ? loss.toExponential(1) : loss.toFixed(4)
}

/** A duration as a clock: `0:42`, `1:02:03`. */
export function clock(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-:--'
  const whole = Math.max(0, Math.round(seconds))
  const two = (value: number) => String(value).padStart(2, '0')
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}

/** A duration in words: `4.6 s`, `42 s`, `3 min 5 s`, `1 h 24 min`. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** A count in three digits: `888 k`, `40.6 M`, `15.5 G`; whole below 1000. */
export function metric(value: number): string {
  const units = ['', ' k', ' M', ' G', ' T', ' P']
  let scaled = value
  let unit = 0
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000
    unit++
  }
  const decimals = unit === 0 || scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2
  return `${scaled.toFixed(decimals)}${units[unit]}`
}

/** `28 x 28 x 1` */
export function extents(shape: readonly number[]): string {
  return shape.join(' x ')
}

/** `3 trials`, `1 trial` */
export function plural(count: number, noun: string): string {
  return `${grouped(count)} ${noun}${count === 1 ? '' : 's'}`
}

/**
 * Words in lines of at most `width` characters, the first line after `first`, the
 * others after as many spaces.
 */
export function wrapped(text: string, width: number, first: string): string {
  const lines: string[] = []
  let line = first.trimEnd()
  let empty = true
  for (const word of text.split(/ (?!%)/)) {
    const longer = empty ? first + word : `${line} ${word}`
    if (empty || longer.length <= width) line = longer
    else {
      lines.push(line)
      line = ' '.repeat(first.length) + word
    }
    empty = false
  }
  return [...lines, line].join('\n')
}
