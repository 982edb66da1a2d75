/**
 * Kills a training process at random moments, resumes it, and compares the end with that of a run that was
 * never killed.
 *
 *   node scripts/kill-and-resume.ts [TIMES, default 20] [MODEL, default singh-brar/lateral-inhibition]
 *
 * Each time is another trial: it is killed (SIGKILL) at a random moment of its life, and again after each
 * resumption, until it ends by itself. Prints one line for each; exit code 1 where a checkpoint was lost or a
 * bit differs.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadCheckpoint } from '../src/train/checkpoint.ts'
import { hashBytes, hashJson } from '../src/util/hash.ts'
import { bytesOf } from '../src/util/host-tensor.ts'

const main = join(import.meta.dirname, '../src/cli/main.ts')
const times = Number(process.argv[2] ?? 20)
const model = process.argv[3] ?? 'singh-brar/lateral-inhibition'
const folder = await mkdtemp(join(tmpdir(), 'fovea-kill-'))
// As often as there is something new, and as seldom as by default: only the first checkpoint is there then.
const intervals = [['--checkpoint-every', '0.05'], []]
const fresh = (out: string, interval: readonly string[]) => [
  ...['train', '--model', model, '--dataset', 'fashion-mnist-subset', '--epochs', '4', '--threads', '1'],
  ...[...interval, '--out', out],
]

try {
  const whole = join(folder, 'whole')
  const began = performance.now()
  await fovea(fresh(whole, []))
  const milliseconds = performance.now() - began
  const expected = await fingerprint(whole)
  let bad = 0
  for (let time = 1; time <= times; time++) {
    const out = join(folder, `trial-${time}`)
    const interval = intervals[time % intervals.length]!
    const moments: string[] = []
    for (let alive = false; !alive; ) {
      // The first checkpoint is written before the first step; a kill before it has lost nothing.
      const began = existsSync(join(out, 'checkpoint.safetensors'))
      // Without checkpoints on the way a trial would be killed for ever: after six times it gets longer.
      const moment = Math.round(Math.random() * milliseconds * (moments.length < 6 ? 1 : 2))
      const args = began ? ['train', '--resume', out, ...interval] : fresh(out, interval)
      alive = await fovea(args, moment)
      if (!alive) moments.push(`${moment} ms`)
    }
    const same = (await fingerprint(out)) === expected
    if (!same) bad++
    const left = (await readdir(out)).filter(name => name.endsWith('.tmp')).length
    console.log(
      `${time}/${times}: killed after ${moments.join(', ') || 'nothing'}; ${same ? 'the same bits' : 'OTHER BITS'}; ${left} unfinished files left`,
    )
    await rm(out, { recursive: true })
  }
  console.log(`${times - bad} of ${times} the same bits as the run that was not killed`)
  process.exitCode = bad > 0 ? 1 : 0
} finally {
  await rm(folder, { recursive: true, force: true })
}

/** Runs the command line, killed after some milliseconds; gives whether it ended by itself, and well. */
function fovea(args: readonly string[], killAfter?: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    let complaint = ''
    child.stderr.on('data', chunk => {
      complaint += chunk
    })
    const timer = killAfter === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfter)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (signal === 'SIGKILL') resolve(false)
      else if (code === 0) resolve(true)
      else reject(new Error(`exit code ${code}: ${complaint}`))
    })
  })
}

/** Of everything in a checkpoint but the clock. */
async function fingerprint(directory: string): Promise<string> {
  const { state, best, position } = await loadCheckpoint(join(directory, 'checkpoint.safetensors'))
  const tensors = Object.entries({ ...state, ...best }).map(([name, value]) => [
    name,
    hashBytes(bytesOf(value)),
  ])
  const history = position.history.map(({ seconds: _, imagesPerSecond: __, ...record }) => record)
  return hashJson({ tensors: Object.fromEntries(tensors), history })
}
