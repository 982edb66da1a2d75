/** What `fovea profile` prints. */
import {
  type Measured,
  type Profile,
  type ProfiledLayer,
  type ProfiledPass,
  sumOf,
} from '../train/profile.ts'
import type { TrainingSpec } from '../train/spec.ts'
import type { Machine, TrialResult } from '../train/trial.ts'
import { grouped, metric, percent, plural } from './format.ts'
import { type Column, table } from './table.ts'
import { colorsOf, widthOf } from './terminal.ts'

/** A profile, and what was measured with what; `fovea profile --json` prints it. */
export interface ProfileDocument
  extends Profile,
    Pick<TrainingSpec, 'batchSize' | 'optimizer' | 'augmentation' | 'frozen' | 'convolution'>,
    Pick<TrialResult, 'fovea' | 'model' | 'dataSet' | 'threads' | 'runtime'> {
  readonly machine: Machine
}

/** Operators and layers of a smaller share of the time are added up. */
const LEAST_SHARE = 0.005

const FIGURES: readonly Column[] = ['share', 'ms', 'calls', 'GFLOP/s', 'GB/s'].map(title => ({
  title,
  align: 'right',
}))

export function profileReport(profile: ProfileDocument): string[] {
  const { batchSize, machine, program, total, passes, ops, layers, steps } = profile
  const { bold, dim } = colorsOf(process.stdout)
  const options = { width: widthOf(process.stdout), styleTitle: dim }
  const named = (title: string): Column => ({ title, style: bold })
  const { dataSet, optimizer, threads, runtime } = profile
  const work = (nodes: number, { multiplyAdds, bytes }: { multiplyAdds: number; bytes: number }) =>
    `${plural(nodes, 'node')}, ${metric(multiplyAdds)} multiply-adds, ${metric(bytes)}B read and written`
  return [
    `${bold(profile.model)} on ${dataSet.name}: minibatches of ${plural(batchSize, 'image')}, ${optimizer.optimizer}`,
    `${plural(threads, 'thread')}, ${runtime}, ${machine.cpu}`,
    '',
    `  a step            ${ms(profile.stepSeconds)} ms, ${grouped(batchSize / profile.stepSeconds)} images/s; median of ${plural(steps, 'step')}`,
    `  with the profiler ${ms(profile.profiledStepSeconds)} ms, of which ${ms(total.seconds)} in nodes`,
    `  as written        ${work(program.nodes, program)}`,
    `  as it runs        ${work(total.calls, total)}`,
    '',
    ...table(
      [named('pass'), ...FIGURES],
      (Object.keys(passes) as ProfiledPass[])
        .filter(pass => passes[pass].calls > 0)
        .map(pass => [pass, ...figures(passes[pass])]),
      options,
    ),
    '',
    ...table(
      [named('operator'), ...FIGURES],
      largest(ops).map(({ rows, others }) => [others ?? rows[0]!.op, ...figures(sumOf(rows))]),
      options,
    ),
    '',
    ...table(
      [
        named('layer'),
        { title: 'kind' },
        ...SPLIT.map((title): Column => ({ title, align: 'right' })),
        ...FIGURES,
      ],
      largest(layers).map(({ rows, others }) => [
        others ?? rows[0]!.name,
        others ? '' : [rows[0]!.kind ?? '', ...rows[0]!.forms].join(', '),
        ...SPLIT.map(pass => msOf(rows, pass)),
        ...figures(sumOf(rows)),
      ]),
      options,
    ),
    '',
    'share: of the time in nodes. ms, calls, forward, backward, update: of a step, the',
    'median of each node.',
    'GFLOP/s: of matrix products and convolutions, a multiply-add being two.',
    'Pass, Update: kernels of Fovea, each of several nodes; named after what they write.',
  ]
}

const SPLIT = ['forward', 'backward', 'update'] as const

const msOf = (rows: readonly ProfiledLayer[], pass: ProfiledPass): string => {
  const seconds = rows.reduce((sum, { passes }) => sum + passes[pass].seconds, 0)
  return seconds > 0 ? ms(seconds) : ''
}

/** The rows that matter, each by itself, and all others together. */
function largest<T extends Measured>(
  rows: readonly T[],
): { readonly rows: readonly T[]; readonly others?: string }[] {
  const large = rows.filter(({ share }) => share >= LEAST_SHARE)
  const small = rows.filter(({ share, calls }) => share < LEAST_SHARE && calls > 0)
  return [
    ...large.map(row => ({ rows: [row] })),
    ...(small.length > 0 ? [{ rows: small, others: plural(small.length, 'other') }] : []),
  ]
}

function figures({ share, seconds, calls, multiplyAdds, bytes }: Measured): string[] {
  const rate = (amount: number) =>
    amount > 0 && seconds > 0 ? ((amount / seconds) * 1e-9).toPrecision(3) : ''
  return [percent(share), ms(seconds), grouped(calls), rate(2 * multiplyAdds), rate(bytes)]
}

/** Milliseconds in three digits. */
function ms(seconds: number): string {
  const value = seconds * 1000
  return value >= 100 ? grouped(value) : value.toFixed(value >= 9.995 ? 1 : value >= 0.9995 ? 2 : 3)
}
