/**
 * `npm run bench`: training throughput of Fovea beside its peers, on the real Fashion-MNIST.
 *
 *     npm run bench -- [--models basic,mlp] [--threads 2] [--batch 32] [--steps 200] [--rounds 4]
 *                      [--python .venv/bin/python] [--data DIR] [--save]
 *
 * Fovea and its peer take turns, round by round, so that a slow moment of the machine falls on both. Reported are the
 * minimum of each over all rounds, and the ratio of the two as the median over rounds. Without a Python that has
 * PyTorch, Fovea is measured alone. `--save` keeps the result in bench/results/.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { availableParallelism, cpus } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { defaultCacheDir } from '../src/data/cache.ts'
import type { DataSet } from '../src/data/data-set.ts'
import { fashionMnist } from '../src/data/fashion-mnist.ts'
import { loadDataSet } from '../src/data/registry.ts'
import { writeFileAtomic } from '../src/train/files.ts'
import { foveaVersion } from '../src/train/version.ts'
import { FoveaError, UsageError, unknownName } from '../src/util/errors.ts'
import { type Timing, timeTraining } from './fovea.ts'
import { benchModels } from './models.ts'

interface Settings {
  readonly threads: number
  readonly batch: number
  readonly steps: number
}

interface Peer {
  readonly python: string
  /** Where the files are that Fovea loaded. */
  readonly folder: string
}

interface Round {
  readonly fovea: Timing
  readonly peer: PeerTiming | undefined
}

interface PeerTiming extends Timing {
  readonly version: string
  readonly variant: Readonly<Record<string, string>>
}

function parseFlags() {
  try {
    const { values } = parseArgs({
      options: {
        models: { type: 'string', default: Object.keys(benchModels).join(',') },
        threads: { type: 'string', default: String(availableParallelism()) },
        batch: { type: 'string', default: '32' },
        steps: { type: 'string', default: '200' },
        rounds: { type: 'string', default: '4' },
        python: { type: 'string', default: '.venv/bin/python' },
        data: { type: 'string' },
        save: { type: 'boolean', default: false },
      },
    })
    const number = (name: 'threads' | 'batch' | 'steps' | 'rounds') => {
      const text = values[name]
      if (!/^[1-9]\d*$/.test(text))
        throw new UsageError(`bench: --${name} must be a whole number of at least 1, received "${text}"`)
      return Number(text)
    }
    const models = values.models.split(',').map(name => {
      const model = benchModels[name]
      if (!model) throw unknownName('benchmark model', name, Object.keys(benchModels))
      return { name, ...model }
    })
    const settings = { threads: number('threads'), batch: number('batch'), steps: number('steps') }
    return { ...values, models, settings, rounds: number('rounds') }
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(`bench: ${error.message}`)
    throw error
  }
}

async function main(): Promise<void> {
  const { models, settings, rounds: count, python, data, save } = parseFlags()
  const dataSet = await loadDataSet('fashion-mnist', data === undefined ? {} : { folder: data })
  console.error(`Fashion-MNIST from ${dataSet.source}`)
  const peer = await findPeer(python, dataSet, data)

  const results = []
  for (const { name, title, build, peer: peerModel } of models) {
    const rounds: Round[] = []
    for (let round = 0; round < count; round++)
      rounds.push({
        fovea: await timeTraining(build(), dataSet, { ...settings, repeats: 4 }),
        peer: peer && peerModel ? await timePeer(peer, peerModel, settings) : undefined,
      })
    const result = summary(name, title, rounds)
    results.push(result)
    printLine(result, settings.batch)
  }
  if (save) {
    const path = `bench/results/${new Date().toISOString().slice(0, 10)}-${settings.threads}-threads.json`
    await mkdir('bench/results', { recursive: true })
    const machine = { cpu: cpus()[0]?.model, cores: availableParallelism(), node: process.version }
    await writeFileAtomic(
      path,
      `${JSON.stringify({ fovea: foveaVersion, machine, ...settings, results }, undefined, 2)}\n`,
    )
    console.log(`saved ${path}`)
  }
}

/** The peer with the very data that Fovea loaded; undefined, and said, where there is no Python. */
async function findPeer(python: string, dataSet: DataSet, data?: string): Promise<Peer | undefined> {
  if (!existsSync(python)) {
    console.error(
      `no Python at ${python}: Fovea is measured alone. For PyTorch beside it: python3 -m venv .venv && .venv/bin/pip install torch numpy`,
    )
    return undefined
  }
  const folder = data ?? (await folderOf(dataSet))
  console.error(`the peer reads ${folder}`)
  return { python, folder }
}

/** The folder whose content is the data set's, by its hash. */
async function folderOf({ hash, source }: DataSet): Promise<string> {
  for (const folder of [join(defaultCacheDir(), 'fashion-mnist'), fashionMnist.debian!.folder]) {
    const found = await loadDataSet('fashion-mnist', { folder }).catch(() => undefined)
    if (found?.hash === hash) return folder
  }
  throw new UsageError(
    `bench: Fovea's data came from ${source}, where the peer cannot read it; name a folder of the four .gz files by --data`,
  )
}

async function timePeer({ python, folder }: Peer, model: string, settings: Settings): Promise<PeerTiming> {
  const args = ['bench/peers/pytorch.py', '--model', model, '--data', folder, '--repeats', '2']
  for (const [flag, value] of Object.entries(settings)) args.push(`--${flag}`, String(value))
  try {
    const { stdout } = await promisify(execFile)(python, args)
    return JSON.parse(stdout) as PeerTiming
  } catch (error) {
    const { stderr, message } = error as Error & { stderr?: string }
    throw new FoveaError(
      `bench: the peer, ${python}, failed: ${(stderr || message).trim().split('\n').at(-1)}`,
    )
  }
}

function summary(name: string, title: string, rounds: readonly Round[]) {
  const least = (of: (round: Round) => number | undefined) =>
    Math.min(...rounds.map(round => of(round) ?? Number.POSITIVE_INFINITY))
  const ratios = rounds
    .flatMap(({ fovea, peer }) => (peer ? [peer.msPerStep.min / fovea.msPerStep.min] : []))
    .sort((a, b) => a - b)
  return {
    name,
    title,
    foveaMs: least(({ fovea }) => fovea.msPerStep.min),
    peerMs: ratios.length > 0 ? least(({ peer }) => peer?.msPerStep.min) : undefined,
    peer: rounds[0]?.peer && `pytorch ${rounds[0].peer.version}`,
    ratios,
    medianRatio: median(ratios),
    rounds,
  }
}

/** The middle of sorted values, or the mean of the two in the middle. */
function median(sorted: readonly number[]): number | undefined {
  const low = sorted[Math.floor((sorted.length - 1) / 2)]
  const high = sorted[Math.floor(sorted.length / 2)]
  return low === undefined || high === undefined ? undefined : (low + high) / 2
}

function printLine(result: ReturnType<typeof summary>, batch: number): void {
  const { title, foveaMs, peerMs, peer, ratios, medianRatio } = result
  const rate = (ms: number) => `${Math.round((batch * 1000) / ms).toLocaleString('en')} img/s`
  const mine = `${title.padEnd(38)} fovea ${foveaMs.toFixed(3)} ms/step, ${rate(foveaMs)}`
  if (peerMs === undefined || medianRatio === undefined) console.log(mine)
  else
    console.log(
      `${mine} | ${peer} ${peerMs.toFixed(3)} ms/step, ${rate(peerMs)} | ${medianRatio.toFixed(2)} x (rounds ${ratios.map(r => r.toFixed(2)).join(', ')})`,
    )
}

try {
  await main()
} catch (error) {
  if (!(error instanceof FoveaError)) throw error
  console.error(error.message)
  process.exitCode = error.exitCode
}
