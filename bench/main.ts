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
import { parseArgs, promisify } from 'node:util'
import { defaultCacheDir } from '../src/data/cache.ts'
import { loadDataSet } from '../src/data/registry.ts'
import { writeFileAtomic } from '../src/train/files.ts'
import { foveaVersion } from '../src/train/version.ts'
import { unknownName } from '../src/util/errors.ts'
import { type Timing, timeTraining } from './fovea.ts'
import { benchModels } from './models.ts'

const { values: flags } = parseArgs({
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

interface Round {
  readonly fovea: Timing
  readonly peer: PeerTiming | undefined
}

interface PeerTiming extends Timing {
  readonly version: string
  readonly variant: Readonly<Record<string, string>>
}

const DEBIAN = '/usr/share/datasets/fashion-mnist'
const numbers = { threads: Number(flags.threads), batch: Number(flags.batch), steps: Number(flags.steps) }
const dataSet = await loadDataSet('fashion-mnist', flags.data === undefined ? {} : { folder: flags.data })
const folder = flags.data ?? (existsSync(DEBIAN) ? DEBIAN : `${defaultCacheDir()}/fashion-mnist`)
const hasPeer = existsSync(flags.python)
if (!hasPeer)
  console.error(
    `no Python at ${flags.python}: Fovea is measured alone. For PyTorch beside it: python3 -m venv .venv && .venv/bin/pip install torch numpy`,
  )

const results = []
for (const name of flags.models.split(',')) {
  const model = benchModels[name]
  if (!model) throw unknownName('benchmark model', name, Object.keys(benchModels))
  const rounds: Round[] = []
  for (let round = 0; round < Number(flags.rounds); round++)
    rounds.push({
      fovea: await timeTraining(model.build(), dataSet, { ...numbers, repeats: 4 }),
      peer: hasPeer && model.peer ? await timePeer(model.peer) : undefined,
    })
  results.push(summary(name, model.title, rounds))
  printLine(results.at(-1)!)
}
if (flags.save) {
  const path = `bench/results/${new Date().toISOString().slice(0, 10)}-${numbers.threads}-threads.json`
  await mkdir('bench/results', { recursive: true })
  const machine = { cpu: cpus()[0]?.model, cores: availableParallelism(), node: process.version }
  await writeFileAtomic(
    path,
    `${JSON.stringify({ fovea: foveaVersion, machine, ...numbers, results }, undefined, 2)}\n`,
  )
  console.log(`saved ${path}`)
}

async function timePeer(model: string): Promise<PeerTiming> {
  const { threads, batch, steps } = numbers
  const args = ['bench/peers/pytorch.py', '--model', model, '--data', folder, '--repeats', '2']
  for (const [flag, value] of Object.entries({ threads, batch, steps })) args.push(`--${flag}`, String(value))
  const { stdout } = await promisify(execFile)(flags.python, args)
  return JSON.parse(stdout) as PeerTiming
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
    medianRatio: ratios[Math.floor(ratios.length / 2)],
    rounds,
  }
}

function printLine({ title, foveaMs, peerMs, peer, ratios, medianRatio }: ReturnType<typeof summary>): void {
  const rate = (ms: number) => `${Math.round((numbers.batch * 1000) / ms).toLocaleString('en')} img/s`
  const mine = `${title.padEnd(38)} fovea ${foveaMs.toFixed(3)} ms/step, ${rate(foveaMs)}`
  if (peerMs === undefined || medianRatio === undefined) console.log(mine)
  else
    console.log(
      `${mine} | ${peer} ${peerMs.toFixed(3)} ms/step, ${rate(peerMs)} | ${medianRatio.toFixed(2)} x (rounds ${ratios.map(r => r.toFixed(2)).join(', ')})`,
    )
}
