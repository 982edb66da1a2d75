/**
 * Measures the profile of docs/speed.md again, on this machine, and rewrites it there:
 *
 *     node scripts/speed-page.ts [--data DIR]
 */
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { FoveaError } from '../src/util/errors.ts'

const PAGE = new URL('../docs/speed.md', import.meta.url)

const page = await readFile(PAGE, 'utf8')
const parts = /^([\s\S]*<!-- (profile .*) -->\n)[\s\S]*(\n<!-- end -->[\s\S]*)$/.exec(page)
if (!parts)
  throw new FoveaError('docs/speed.md: expected "<!-- profile ... -->" and "<!-- end -->", received none')
const [, before, command, after] = parts as unknown as readonly [string, string, string, string]
const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))
const { stdout } = await promisify(execFile)(process.execPath, [
  main,
  ...command.split(' '),
  ...process.argv.slice(2),
])
await writeFile(PAGE, `${before}\n\`\`\`text\n${stdout}\`\`\`\n${after}`)
console.log(stdout)
