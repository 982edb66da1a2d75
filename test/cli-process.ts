/** Runs the command line as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'

const main = join(import.meta.dirname, '../src/cli/main.ts')

export interface Outcome {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface Watch {
  /** Called with all of stderr so far, whenever something comes. */
  readonly onStderr?: (text: string, child: ChildProcess) => void
  readonly cwd?: string
  readonly env?: Record<string, string>
}

/** `fovea ARGUMENTS`, with neither output a terminal. */
export function fovea(args: readonly string[], watch: Watch = {}): Promise<Outcome> {
  return node([main, ...args], watch)
}

export function node(args: readonly string[], { onStderr, cwd, env }: Watch = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd, env: { ...process.env, ...env } })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', chunk => {
      stdout += chunk
    })
    child.stderr.on('data', chunk => {
      stderr += chunk
      onStderr?.(stderr, child)
    })
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
}

/** A folder that is taken away after the file's tests. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'fovea-cli-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
