/** The bench's results as Markdown. */
import type { PeerRow, Row, Task } from './measure.ts'
import type { Missing } from './peers.ts'
import { compare, limitMs, memoryRatio, perSecond, type Spread, spread } from './summary.ts'
import type { TrialsRow } from './trials.ts'

export interface Report {
  readonly date: string
  readonly fovea: string
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memory: number
    readonly platform: string
    readonly node: string
  }
  readonly missing: readonly Missing[]
  readonly rows: readonly Row[]
  readonly trials: readonly TrialsRow[]
  /** What was not measured for want of time. */
  readonly skipped: readonly string[]
}

export function markdown(report: Report): string {
  const { machine, missing, rows, trials, skipped, date, fovea } = report
  const gib = (machine.memory / 2 ** 30).toFixed(0)
  return [
    `# Bench of ${date}`,
    '',
    `Fovea ${fovea} on ${machine.cpu}, ${machine.cores} cores, ${gib} GiB, ${machine.platform}, Node ${machine.node}.`,
    ...peakLines(rows),
    ...missing.map(({ name, reason, install }) => `Missing: ${name} (${reason}); \`${install}\`.`),
    ...(skipped.length > 0 ? [`Not measured for want of time: ${skipped.join('; ')}.`] : []),
    '',
    ...versions(rows),
    ...section('Training', rows, 'train'),
    ...section('Evaluation', rows, 'evaluate'),
    ...startAndMemory(rows),
    ...trialsSection(trials),
    ...failures(rows),
  ].join('\n')
}

function versions(rows: readonly Row[]): string[] {
  const found = new Map(
    rows.flatMap(({ peers }) =>
      peers.flatMap(({ name, version }) => (version === undefined ? [] : [[name, version] as const])),
    ),
  )
  const codes = [...new Set(rows.map(row => row.conditions.code))]
  const measured = (code: string) =>
    codes.length === 1
      ? 'all rows'
      : rows
          .filter(row => row.conditions.code === code)
          .map(({ network, batch, threads }) => `${network} ${batch}/${threads}`)
          .join(', ')
  return [
    ...[...found].map(([name, version]) => `- ${name}: ${version}`),
    ...codes.map(code => `- code of Fovea (git's name of src) ${code}: ${measured(code)}`),
    '',
  ]
}

/** What the machine could do at best when the runs began; it differs where a host is shared. */
function peakLines(rows: readonly Row[]): string[] {
  return [...new Set(rows.map(({ threads }) => threads))].map(threads => {
    const peaks = rows.filter(row => row.threads === threads).map(row => row.conditions.peaks)
    const of = (values: readonly number[], digits: number) => {
      const { least, most } = spread(values)
      return [...new Set([least.toFixed(digits), most.toFixed(digits)])].join(' to ')
    }
    const [gflops, gigabytes] = [peaks.map(peak => peak.gflops), peaks.map(peak => peak.gigabytes)]
    return `Peaks with ${threads} ${threads === 1 ? 'thread' : 'threads'}, by ONNX Runtime: ${of(gflops, 0)} GFLOP/s of matrix product, ${of(gigabytes, 1)} GB/s of memory.`
  })
}

function namesOf(rows: readonly Row[], has: (peer: PeerRow) => boolean): string[] {
  return [...new Set(rows.flatMap(({ peers }) => peers.filter(has).map(({ name }) => name)))]
}

/** Images a second of each peer, by the median of its rounds. */
function section(title: string, rows: readonly Row[], task: Task): string[] {
  const names = namesOf(rows, peer => peer[task] !== undefined)
  if (names.length === 0) return []
  const lines = rows.map(row => {
    const cells = names.map(name => {
      const peer = row.peers.find(one => one.name === name)
      const rate = peer && perSecond(row, peer, task)
      return rate === undefined ? '-' : count(rate)
    })
    const best = compare(row, task)
    const fovea = row.peers.find(({ name }) => name === 'fovea')?.[task]
    const share = fovea
      ? `${Math.round((100 * limitMs(row, row.conditions.peaks)) / spread(fovea).median)} %`
      : '-'
    return [
      row.network,
      row.batch,
      row.threads,
      ...cells,
      best ? `**${times(best.ratio.median)}** (${range(best.ratio)})` : '-',
      best?.peer ?? '-',
      ...(task === 'train' ? [share] : []),
    ]
  })
  const heads = ['network', 'batch', 'threads', ...names, 'Fovea over the fastest peer', 'which is']
  return [
    `## ${title}: images a second`,
    '',
    ...grid([...heads, ...(task === 'train' ? ['of the limit'] : [])], lines),
    '',
    `Medians of the rounds; the ratio is the median (least to most) over rounds of the peer's time by Fovea's.`,
    ...(task === 'train'
      ? [
          'The limit: six operations for each multiply-add of the network as it is defined, at the peak of matrix products, or seven passes over the weights at the peak of memory, whichever takes longer; a form of convolution with fewer products than the definition may pass it.',
        ]
      : []),
    '',
  ]
}

function startAndMemory(rows: readonly Row[]): string[] {
  const names = namesOf(rows, ({ startUp }) => startUp !== undefined)
  if (names.length === 0) return []
  const lines = rows.map(row => {
    const ratio = memoryRatio(row, 'pytorch')
    return [
      row.network,
      row.batch,
      row.threads,
      ...names.map(name => {
        const peer = row.peers.find(one => one.name === name)
        if (peer?.startUp === undefined) return '-'
        const memory = peer.peakBytes === undefined ? '' : `, ${count(peer.peakBytes / 2 ** 20)} MiB`
        return `${peer.startUp.toFixed(1)} s${memory}`
      }),
      ratio === undefined ? '-' : times(ratio),
    ]
  })
  return [
    '## From the start of the process to the end of the first step; the most memory that was resident',
    '',
    ...grid(['network', 'batch', 'threads', ...names, "Fovea's memory over PyTorch's"], lines),
    '',
  ]
}

function trialsSection(trials: readonly TrialsRow[]): string[] {
  if (trials.length === 0) return []
  const lines = trials.flatMap(({ network, count: number, batch, epochs, images, peers, cores }) =>
    peers.map(({ name, inTurn, atOnce, error }) => {
      const head = [network, number, epochs, batch, name]
      if (!inTurn?.length || !atOnce?.length) return [...head, '-', '-', error ?? '-']
      const ratio = spread(inTurn.map((seconds, round) => seconds / atOnce[round]!))
      const rate = (seconds: readonly number[]) => count(images / spread(seconds).median)
      return [
        ...head,
        `${rate(inTurn)} (${cores} threads)`,
        `${rate(atOnce)} (${Math.min(cores, number)} x 1 thread)`,
        `${times(ratio.median)} (${range(ratio)})`,
      ]
    }),
  )
  return [
    '## Whole trials: images a second of training, with start-up and evaluation',
    '',
    ...grid(
      [
        'network',
        'trials',
        'epochs',
        'batch',
        'peer',
        'one after another',
        'at once',
        'at once over in turn',
      ],
      lines,
    ),
    '',
  ]
}

/** Why a cell is empty. */
function failures(rows: readonly Row[]): string[] {
  const found = rows.flatMap(({ network, batch, threads, peers }) =>
    peers.flatMap(({ name, error }) =>
      error === undefined ? [] : [`- ${network}, batch ${batch}, ${threads} threads, ${name}: ${error}`],
    ),
  )
  return found.length === 0 ? [] : ['## What a peer could not do', '', ...found, '']
}

function grid(heads: readonly string[], rows: readonly (readonly (string | number)[])[]): string[] {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`
  return [line(heads), line(heads.map(() => '---')), ...rows.map(line)]
}

const count = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3)

const times = (ratio: number): string => `${ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(2)} x`

const range = ({ least, most }: Spread): string => `${least.toFixed(2)} to ${most.toFixed(2)}`
