/** The peers: how each is started, and whether it is there. */
import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { exitOnSignals } from '../scripts/exit-on-signals.ts'
import { FoveaError } from '../src/util/errors.ts'
import type { Answers, Request } from './protocol.ts'
import { scratch } from './scratch.ts'

export interface Peer {
  readonly name: string
  /** Program and arguments. */
  readonly command: readonly [string, ...string[]]
  /** The language and the library, for people. */
  readonly title: string
  /** Uses one thread however many it is given. Default: false. */
  readonly oneThread?: boolean
}

/** A peer that cannot take part. */
export interface Missing {
  readonly name: string
  readonly reason: string
  readonly install: string
}

const folder = join(import.meta.dirname, 'peers')

interface Kind {
  readonly name: string
  readonly title: string
  readonly file: string
  readonly flags?: readonly string[]
  /** Python modules, or npm packages of bench/peers. Default: none, for Fovea. */
  readonly python?: readonly string[]
  readonly npm?: readonly string[]
  readonly oneThread?: boolean
}

const kinds: readonly Kind[] = [
  { name: 'fovea', title: 'Fovea', file: 'fovea.ts' },
  { name: 'pytorch', title: 'PyTorch, eager', file: 'pytorch.py', python: ['torch'] },
  {
    name: 'pytorch-compile',
    title: 'PyTorch, torch.compile',
    file: 'pytorch.py',
    flags: ['--compile'],
    python: ['torch'],
  },
  {
    name: 'keras-tensorflow',
    title: 'Keras on TensorFlow',
    file: 'keras_peer.py',
    flags: ['--backend', 'tensorflow'],
    python: ['keras', 'tensorflow'],
  },
  {
    name: 'keras-jax',
    title: 'Keras on JAX',
    file: 'keras_peer.py',
    flags: ['--backend', 'jax'],
    python: ['keras', 'jax'],
  },
  {
    name: 'sklearn',
    title: 'scikit-learn, MLPClassifier',
    file: 'sklearn_peer.py',
    python: ['sklearn'],
  },
  {
    name: 'tfjs-wasm',
    title: 'TensorFlow.js, WASM',
    file: 'tfjs-peer.mjs',
    flags: ['--backend', 'wasm'],
    npm: ['@tensorflow/tfjs-backend-wasm'],
    oneThread: true,
  },
  {
    name: 'tfjs-cpu',
    title: 'TensorFlow.js, CPU',
    file: 'tfjs-peer.mjs',
    flags: ['--backend', 'cpu'],
    npm: ['@tensorflow/tfjs-backend-cpu'],
    oneThread: true,
  },
  {
    name: 'jax-js',
    title: 'jax-js, WASM',
    file: 'jax-js-peer.mjs',
    npm: ['@jax-js/jax'],
    oneThread: true,
  },
]

export const peerNames: readonly string[] = kinds.map(({ name }) => name)

const INSTALL = {
  python: 'python3 -m venv .venv && .venv/bin/pip install -r bench/peers/requirements.txt',
  npm: 'npm ci --prefix bench/peers',
}

/** Which of the named peers are there. */
export async function findPeers(
  names: readonly string[],
  python: string,
): Promise<{ peers: Peer[]; missing: Missing[] }> {
  const wanted = kinds.filter(({ name }) => names.includes(name))
  const modules = await pythonModules(python, [...new Set(wanted.flatMap(kind => kind.python ?? []))])
  const peers: Peer[] = []
  const missing: Missing[] = []
  for (const { name, title, file, flags = [], python: needed, npm, oneThread } of wanted) {
    const lacks = needed?.filter(module => !modules?.has(module)) ?? npm?.filter(lacksPackage) ?? []
    if (lacks.length > 0) {
      const reason = needed && !modules ? `no Python at ${python}` : `no ${lacks.join(', no ')}`
      missing.push({ name, reason, install: needed ? INSTALL.python : INSTALL.npm })
    } else
      peers.push({
        name,
        title,
        command: [needed ? python : process.execPath, join(folder, file), ...flags],
        ...(oneThread ? { oneThread } : {}),
      })
  }
  return { peers, missing }
}

const lacksPackage = (name: string) => !existsSync(join(folder, 'node_modules', name, 'package.json'))

/** Those of some modules that a Python can import; undefined where there is no such Python. */
async function pythonModules(
  python: string,
  modules: readonly string[],
): Promise<ReadonlySet<string> | undefined> {
  if (modules.length === 0) return new Set()
  const code = 'import sys, importlib.util as u; print(*[m for m in sys.argv[1:] if u.find_spec(m)])'
  const found = await promisify(execFile)(python, ['-c', code, ...modules]).catch(() => undefined)
  return found && new Set(found.stdout.trim().split(' '))
}

/**
 * For glibc: memory that a peer frees stays its own. Large blocks would go back to the system and come anew, page by
 * page, with each step: PyTorch then takes up to twice its time, in some runs and not in others.
 */
const KEEPING_MEMORY = { MALLOC_MMAP_MAX_: '0', MALLOC_TRIM_THRESHOLD_: String(2 ** 34) }

/** Where Node keeps what it made of sources, as Fovea's command line asks it to, and as Python does by itself. */
const COMPILED = join(tmpdir(), 'node-compile-cache')

/** A peer's process under way. */
export class PeerProcess {
  readonly peer: Peer
  /** When it was started, milliseconds since 1970. */
  readonly started = performance.timeOrigin + performance.now()
  private readonly child: ChildProcessWithoutNullStreams
  private readonly gone: Promise<never>
  private waiting: ((line: string) => void) | undefined
  private complaint = ''

  constructor(peer: Peer) {
    this.peer = peer
    const [program, ...args] = peer.command
    // A group of its own: what a peer starts (compilers) ends with it.
    // A temporary folder that the bench removes: a peer that is killed leaves what it wrote.
    this.child = spawn(program, args, {
      detached: true,
      env: { NODE_COMPILE_CACHE: COMPILED, ...KEEPING_MEMORY, ...process.env, TMPDIR: scratch() },
    })
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.complaint = (this.complaint + text).slice(-4000)
    })
    createInterface({ input: this.child.stdout }).on('line', line => {
      this.waiting?.(line)
      this.waiting = undefined
    })
    this.gone = new Promise((_, reject) => {
      this.child.once('error', reject)
      this.child.once('close', (code, signal) => {
        const last = this.complaint.trim().split('\n').at(-1)
        reject(new FoveaError(`${peer.name} ended (${signal ?? `code ${code}`})${last ? `: ${last}` : ''}`))
      })
    })
    this.gone.catch(() => {})
    // What is written to a process that has ended is told by `gone`.
    this.child.stdin.on('error', () => {})
    running.add(this)
  }

  /**
   * @param seconds to wait for the answer
   * @throws FoveaError where the peer answers an error, ends, or takes longer: it is killed then
   */
  async ask<K extends Request['do']>(
    request: Extract<Request, { do: K }>,
    seconds: number,
  ): Promise<Answers[K]> {
    const line = new Promise<string>(resolve => {
      this.waiting = resolve
    })
    this.child.stdin.write(`${JSON.stringify(request)}\n`)
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        reject(new FoveaError(`${request.do}: no answer within ${Math.round(seconds)} s`))
        this.kill()
      }, seconds * 1000)
    })
    try {
      const answer = JSON.parse(await Promise.race([line, this.gone, late]))
      if (answer.error !== undefined) throw new FoveaError(answer.error)
      return answer
    } finally {
      clearTimeout(timer)
    }
  }

  /** Ends it and waits until it has. */
  async end(): Promise<void> {
    this.child.stdin.end()
    const timer = setTimeout(() => this.kill(), 5000)
    await this.gone.catch(() => {})
    clearTimeout(timer)
    this.kill()
    running.delete(this)
  }

  kill(): void {
    try {
      process.kill(-this.child.pid!, 'SIGKILL')
    } catch {
      // The group is gone already.
    }
  }
}

const running = new Set<PeerProcess>()
process.on('exit', () => {
  for (const one of running) one.kill()
})
exitOnSignals()
