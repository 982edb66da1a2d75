/**
 * `npm run bench`: Fovea beside its peers, on real images. See bench/README.md.
 *
 *     npm run bench -- [--quick] [--only NAME,NAME] [--json] [--save]
 *                      [--batch 32,128] [--threads 1,2] [--rounds 5] [--peers pytorch,keras-jax]
 *                      [--python .venv/bin/python] [--fashion-mnist DIR] [--cifar-10 DIR]
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { duration } from '../src/cli/format.ts'
import { foveaVersion } from '../src/train/version.ts'
import { FoveaError, UsageError, unknownName } from '../src/util/errors.ts'
import { codeName, machine, peaksOf } from './machine.ts'
import { type Conditions, measureRow, type Pace, type Row } from './measure.ts'
import { ImageFiles, type Network, networks } from './networks.ts'
import { findPeers, peerNames } from './peers.ts'
import { checkKept, keep } from './results.ts'
import { compare, perSecond } from './summary.ts'
import { markdown, type Report } from './table.ts'
import { measureTrials, type TrialsKey, type TrialsRow } from './trials.ts'

const FULL: Pace = { rounds: 5, turn: 1.5, choose: 1, firstStep: 200, patience: 60 }
const QUICK: Pace = { rounds: 3, turn: 0.8, choose: 0.4, firstStep: 30, patience: 20 }
/** --quick begins nothing after so many seconds; a row takes under a minute where peers start from a warm disk. */
const QUICK_SECONDS = 240

const QUICK_NETWORKS = ['singh-brar/basic', 'bassas/mlp-3', 'korssjoen/dense', 'visionnet/plain', 'resnet20']
const QUICK_PEERS = ['fovea', 'pytorch', 'keras-tensorflow', 'sklearn', 'tfjs-wasm']

/** What studies run: two networks beside each other, and a grid of small ones. */
const wholeTrials: readonly { network: string; count: number; epochs: number }[] = [
  { network: 'bassas/mlp-3', count: 8, epochs: 2 },
  { network: 'singh-brar/basic', count: 2, epochs: 1 },
  { network: 'korssjoen/dense', count: 2, epochs: 1 },
]
/** A trial that takes longer is given up. */
const TRIAL_SECONDS = 300
const TRIAL_PEERS = ['fovea', 'pytorch', 'keras-tensorflow', 'sklearn']

const HELP = `usage: npm run bench -- [options]

  --quick              five networks, batch 32, all threads, the usual peers: within five minutes
  --only NAME,NAME     networks (${networks.map(({ name }) => name).join(', ')}); "trials" for whole trials
  --batch 32,128       images of a step
  --threads 1,${machine.cores}        threads of a peer
  --rounds N           turns of each peer (default ${FULL.rounds})
  --peers NAME,NAME    of ${peerNames.join(', ')}
  --python PATH        a Python that has the peers (default .venv/bin/python)
  --fashion-mnist DIR  where the images are, if not where Fovea finds them itself
  --cifar-10 DIR
  --json               the whole result on standard output, in the place of the table
  --save               keep both in bench/results/, row by row; the day's other rows stay
`

interface Flags {
  readonly networks: readonly Network[]
  readonly trials: readonly TrialsKey[]
  readonly batches: readonly number[]
  readonly threads: readonly number[]
  readonly pace: Pace
  readonly peers: readonly string[]
  readonly python: string
  readonly files: ImageFiles
  readonly quick: boolean
  readonly json: boolean
  readonly save: boolean
}

function parseFlags(): Flags | undefined {
  const { values } = parsed()
  if (values.help) return undefined
  const { quick, json, save, python } = values
  const all = availableParallelism()
  const wanted = (
    values.only ?? (quick ? QUICK_NETWORKS : [...networks.map(({ name }) => name), 'trials']).join(',')
  ).split(',')
  const known = [...networks.map(({ name }) => name), 'trials']
  for (const name of wanted) if (!known.includes(name)) throw unknownName('network', name, known)
  const peers = values.peers?.split(',') ?? (quick ? QUICK_PEERS : peerNames)
  for (const name of peers) if (!peerNames.includes(name)) throw unknownName('peer', name, peerNames)
  const pace = quick ? QUICK : FULL
  return {
    networks: networks.filter(({ name }) => wanted.includes(name)),
    trials: wanted.includes('trials')
      ? wholeTrials.map(({ network, ...rest }) => ({
          network: networks.find(({ name }) => name === network)!,
          batch: 32,
          ...rest,
        }))
      : [],
    batches: numbers('batch', values.batch ?? (quick ? '32' : '32,128')),
    threads: numbers('threads', values.threads ?? (quick || all === 1 ? String(all) : `1,${all}`)),
    pace: values.rounds === undefined ? pace : { ...pace, rounds: numbers('rounds', values.rounds)[0]! },
    // Nothing can be compared without it.
    peers: ['fovea', ...peers.filter(name => name !== 'fovea')],
    python,
    files: new ImageFiles({ 'fashion-mnist': values['fashion-mnist'], 'cifar-10': values['cifar-10'] }),
    quick,
    json,
    save,
  }
}

function parsed() {
  try {
    return parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        batch: { type: 'string' },
        threads: { type: 'string' },
        rounds: { type: 'string' },
        peers: { type: 'string' },
        python: { type: 'string', default: '.venv/bin/python' },
        'fashion-mnist': { type: 'string' },
        'cifar-10': { type: 'string' },
        json: { type: 'boolean', default: false },
        save: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(`bench: ${error.message}`)
    throw error
  }
}

function numbers(name: string, text: string): number[] {
  return text.split(',').map(one => {
    if (!/^[1-9]\d*$/.test(one))
      throw new UsageError(
        `bench: --${name}: expected whole numbers of at least 1 with commas between them, received "${text}"`,
      )
    return Number(one)
  })
}

/** What is being done, on standard error: one changing line on a terminal, plain lines of what has ended otherwise. */
class Progress {
  private readonly began = performance.now()
  private readonly total: number
  private done = 0

  constructor(total: number) {
    this.total = total
  }

  get seconds(): number {
    return (performance.now() - this.began) / 1000
  }

  now(what: string): void {
    if (!process.stderr.isTTY) return
    const left =
      this.done === 0 ? '' : `, ${duration((this.seconds / this.done) * (this.total - this.done))} left`
    const line = `${this.done + 1} of ${this.total}${left}: ${what}`
    process.stderr.write(`\r\u001b[K${line.slice(0, (process.stderr.columns ?? 80) - 1)}`)
  }

  line(text: string): void {
    process.stderr.write(`${process.stderr.isTTY ? '\r\u001b[K' : ''}${text}\n`)
  }

  end(): void {
    this.done++
  }
}

async function main(): Promise<void> {
  const flags = parseFlags()
  if (!flags) {
    process.stdout.write(HELP)
    return
  }
  await bench(flags)
}

async function bench(flags: Flags): Promise<void> {
  const { pace, files, batches, threads: threadCounts } = flags
  const { peers, missing } = await findPeers(flags.peers, flags.python)
  for (const { name, reason, install } of missing)
    process.stderr.write(`without ${name}: ${reason}; to have it: ${install}\n`)
  const keys = threadCounts.flatMap(threads =>
    batches.flatMap(batch => flags.networks.map(network => ({ network, batch, threads }))),
  )
  // Of its begin: past midnight, its rows would stand in two files.
  const date = new Date().toISOString().slice(0, 10)
  if (flags.save) await checkKept({ date, machine, fovea: foveaVersion })
  const progress = new Progress(keys.length + flags.trials.length)
  progress.now('the peaks of the machine')
  const code = await codeName()
  const conditions = new Map<number, Conditions>()
  for (const threads of threadCounts) conditions.set(threads, { code, peaks: await peaksOf(threads) })

  const rows: Row[] = []
  const trials: TrialsRow[] = []
  const skipped: string[] = []
  const late = (what: string) => {
    if (!flags.quick || progress.seconds < QUICK_SECONDS) return false
    skipped.push(what)
    return true
  }
  const report = (): Report => ({
    date,
    fovea: foveaVersion,
    machine,
    missing,
    rows,
    trials,
    skipped,
  })
  for (const key of keys) {
    const title = `${key.network.name}, batch ${key.batch}, ${key.threads} threads`
    if (late(title)) continue
    const images = await files.of(key.network.dataSet)
    const under = { conditions: conditions.get(key.threads)!, pace }
    rows.push(await measureRow(key, images, peers, under, what => progress.now(`${title}: ${what}`)))
    progress.line(lineOf(title, rows.at(-1)!))
    progress.end()
    if (flags.save) await keep(report())
  }
  for (const key of flags.trials) {
    const title = `${key.count} trials of ${key.network.name}`
    if (late(title)) continue
    const images = await files.of(key.network.dataSet)
    const among = peers.filter(({ name }) => TRIAL_PEERS.includes(name))
    const options = { rounds: Math.min(3, pace.rounds), cores: machine.cores, patience: TRIAL_SECONDS }
    trials.push(await measureTrials(key, images, among, options, what => progress.now(`${title}: ${what}`)))
    progress.line(title)
    progress.end()
    if (flags.save) await keep(report())
  }
  process.stdout.write(flags.json ? `${JSON.stringify(report(), undefined, 2)}\n` : `\n${markdown(report())}`)
}

function lineOf(title: string, row: Row): string {
  const fovea = row.peers.find(({ name }) => name === 'fovea')
  const rate = fovea && perSecond(row, fovea, 'train')
  const best = compare(row, 'train')
  const mine =
    rate === undefined ? `Fovea failed: ${fovea?.error}` : `${Math.round(rate).toLocaleString('en')} images/s`
  const ratio = best
    ? `, ${best.ratio.median.toFixed(2)} x ${best.peer} (${best.ratio.least.toFixed(2)} to ${best.ratio.most.toFixed(2)})`
    : ''
  return `${title}: ${mine}${ratio}`
}

try {
  await main()
} catch (error) {
  if (!(error instanceof FoveaError)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = error.exitCode
}
