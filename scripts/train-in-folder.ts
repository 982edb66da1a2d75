/** `fovea train` in a folder, from a script: begun, gone on with where it was cut off, or only read. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkpointIn } from '../src/train/checkpoint.ts'
import type { TrialResult } from '../src/train/trial.ts'
import { canonicalJson } from '../src/util/hash.ts'
import { exitOnSignals } from './exit-on-signals.ts'

const main = join(import.meta.dirname, '../src/cli/main.ts')

// Ended by whatever, a script does not leave its trials running: they stop at a checkpoint.
const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGTERM')
})
exitOnSignals()

/**
 * Reads the result of a trial in a folder; where there is none yet, trains it first.
 *
 * @param begin flags that define the trial; left out where the folder has a checkpoint of it
 * @param always flags that a checkpoint does not hold, or that may change from one call to the next: --data, --threads
 * @param onLine called with each line of progress. Default: progress goes to the terminal
 * @throws Error where the command fails
 */
export async function resultInFolder(
  folder: string,
  begin: readonly string[],
  always: readonly string[],
  onLine?: (line: string) => void,
): Promise<TrialResult> {
  const path = join(folder, 'result.json')
  if (!existsSync(path)) {
    const trial = existsSync(checkpointIn(folder)) ? ['--resume', folder] : [...begin, '--out', folder]
    await train([...trial, ...always], onLine)
  }
  return JSON.parse(readFileSync(path, 'utf8'))
}

async function train(flags: readonly string[], onLine?: (line: string) => void): Promise<void> {
  const args = ['train', ...flags]
  const child = spawn(process.execPath, [main, ...args], {
    stdio: onLine ? ['ignore', 'ignore', 'pipe'] : 'inherit',
  })
  running.add(child)
  let rest = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) onLine?.(line)
  })
  const code = await new Promise<number | null>((done, fail) => {
    child.on('error', fail)
    child.on('close', done)
  }).finally(() => running.delete(child))
  if (code !== 0) throw new Error(`fovea ${args.join(' ')} ended with code ${code}`)
}

/**
 * Results in a folder are read, not trained again: they must be of the same question.
 *
 * @throws Error where the folder was begun with another, or holds what no study has begun
 */
export function checkQuestion(folder: string, asked: object): void {
  const path = join(folder, 'question.json')
  const question = canonicalJson(asked)
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true })
    const [other] = readdirSync(folder)
    if (other !== undefined)
      throw new Error(`${folder}: expected an empty folder or a study's, received one with ${other}`)
    writeFileSync(path, question)
  }
  const before = canonicalJson(JSON.parse(readFileSync(path, 'utf8')))
  if (before !== question)
    throw new Error(`${folder} holds another study: expected ${before}, received ${question}`)
}
