import { readFileSync } from 'node:fs'

/** The version of this package, recorded with every trial. */
export const foveaVersion: string = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
).version
