/**
 * What `fovea reproduce` shows on stderr: a line for each trial under way, one for the
 * whole, and those that ended.
 */
import type { DataSet } from '../data/data-set.ts'
import { trainedImages } from '../study/estimate.ts'
import type { PlannedTrial, StudyEvent } from '../study/reproduce.ts'
import type { EpochRecord, TrainEvent } from '../train/spec.ts'
import { clock, duration, grouped, lossText, percent, wrapped } from './format.ts'
import { Screen } from './screen.ts'

type Progress = Extract<TrainEvent, { type: 'progress' }>

interface Running {
  readonly trial: PlannedTrial
  progress: Progress | undefined
  /** True once the runtime has been asked for anything: a result that was there already needs nothing. */
  trained: boolean
}

export class StudyDisplay {
  readonly #screen = new Screen()
  readonly #trials: readonly PlannedTrial[]
  readonly #dataSet: DataSet
  readonly #workers: number
  readonly #armWidth: number
  readonly #epochWidth: number
  readonly #running = new Map<PlannedTrial, Running>()
  readonly #over = new Set<PlannedTrial>()
  /** Images a second by architecture, as last seen. */
  readonly #rates = new Map<string, number>()
  readonly #began = performance.now()
  #stopping = false

  constructor(trials: readonly PlannedTrial[], dataSet: DataSet, workers: number) {
    this.#trials = trials
    this.#dataSet = dataSet
    this.#workers = workers
    this.#armWidth = Math.max(...trials.map(({ arm }) => arm.name.length))
    this.#epochWidth = Math.max('epoch'.length, ...trials.map(({ spec }) => 2 * `${spec.epochs}`.length + 1))
  }

  get ended(): number {
    return this.#over.size
  }

  /** The lines above all. */
  begin(title: string, lines: readonly string[]): void {
    const { bold } = this.#screen.colors
    this.#screen.line(bold(title))
    for (const line of lines) this.#screen.line(wrapped(line, this.#screen.width, '  '))
    this.#screen.line()
  }

  /** From here on trials run. */
  run(): void {
    this.#screen.show(() => this.#paint())
  }

  event(event: StudyEvent): void {
    const { trial } = event
    switch (event.type) {
      case 'begin':
        this.#running.set(trial, { trial, progress: undefined, trained: false })
        return
      case 'train':
        this.#train(trial, event.event)
        return
      case 'end':
      case 'failed': {
        const trained = this.#running.get(trial)?.trained ?? false
        this.#running.delete(trial)
        this.#over.add(trial)
        this.#screen.line(this.#ended(event, trained))
      }
    }
  }

  stopping(): void {
    this.#stopping = true
    if (!this.#screen.live) this.#screen.line('stopping: each trial writes its checkpoint')
  }

  end(): void {
    this.#screen.hide()
  }

  #train(trial: PlannedTrial, event: TrainEvent): void {
    const running = this.#running.get(trial)!
    running.trained = true
    if (event.type === 'progress') {
      running.progress = event
      this.#rates.set(trial.arm.architecture, event.imagesPerSecond)
    }
    if (event.type === 'epoch' && !this.#screen.live)
      this.#screen.line(sentence(trial, event.record, event.epochs))
  }

  #ended(event: Extract<StudyEvent, { type: 'end' | 'failed' }>, trained: boolean): string {
    const { trial } = event
    const { dim, green, red } = this.#screen.colors
    const name = `${trial.arm.name.padEnd(this.#armWidth)}  ${String(trial.seed).padStart(4)}`
    if (event.type === 'failed') return `${red('✗')} ${name}  ${event.message}`
    const { test, seconds } = event.result
    const kept = trained ? '' : ', trained before'
    return `${green('✓')} ${name}  test accuracy ${percent(test.accuracy).padStart(8)}  ${dim(`${duration(seconds)}${kept}`)}`
  }

  #paint(): string[] {
    const { dim, yellow } = this.#screen.colors
    const all = [...this.#running.values()]
    const room = Math.max(1, this.#screen.height - 6)
    const shown = all.slice(0, room)
    const more = all.length - shown.length
    const withLoss = this.#screen.width - this.#fixed(true) >= 7
    return [
      ...(this.#over.size > 0 ? [''] : []),
      dim(this.#titles(withLoss)),
      ...shown.map(running => this.#line(running, withLoss)),
      ...(more > 0 ? [dim(`  and ${more} more`)] : []),
      '',
      this.#stopping
        ? yellow('  stopping: each trial writes its checkpoint (Ctrl-C again to quit at once)')
        : this.#whole(),
    ]
  }

  /** Columns of a trial's line besides the bar. */
  #fixed(withLoss: boolean): number {
    return this.#armWidth + this.#epochWidth + 42 + (withLoss ? 8 : 0)
  }

  #barWidth(withLoss: boolean): number {
    return Math.min(40, Math.max(4, this.#screen.width - this.#fixed(withLoss)))
  }

  #titles(withLoss: boolean): string {
    const gap = ' '.repeat(this.#barWidth(withLoss))
    return `  ${'arm'.padEnd(this.#armWidth)}  seed  ${'epoch'.padStart(this.#epochWidth)}  ${gap}${withLoss ? '    loss' : ''}  accuracy  images/s     left`
  }

  #line({ trial, progress }: Running, withLoss: boolean): string {
    const { dim } = this.#screen.colors
    const head = `  ${trial.arm.name.padEnd(this.#armWidth)}  ${String(trial.seed).padStart(4)}`
    if (!progress) return head + dim('   preparing')
    const { epoch, epochs, step, stepsPerEpoch, loss, accuracy, imagesPerSecond, secondsLeft } = progress
    if (step === stepsPerEpoch && epoch === epochs) return head + dim('   testing')
    const bar = this.#screen.bar(step / stepsPerEpoch, this.#barWidth(withLoss))
    const lossCell = withLoss ? `  ${lossText(loss).padStart(6)}` : ''
    return `${head}  ${`${epoch}/${epochs}`.padStart(this.#epochWidth)}  ${bar}${lossCell}  ${percent(accuracy).padStart(8)}  ${grouped(imagesPerSecond).padStart(8)}  ${clock(secondsLeft).padStart(7)}`
  }

  #whole(): string {
    const { dim } = this.#screen.colors
    const total = this.#trials.reduce((sum, trial) => sum + this.#images(trial), 0)
    const left = this.#trials.reduce((sum, trial) => sum + this.#imagesLeft(trial), 0)
    const done = 1 - left / total
    const head = `  ${this.#over.size} of ${this.#trials.length} trials  `
    const elapsed = clock((performance.now() - this.#began) / 1000)
    const tail = `  ${(done * 100).toFixed(done < 0.1 ? 1 : 0)} %  ${elapsed} so far, ${clock(this.#secondsLeft())} left`
    const width = Math.min(40, Math.max(8, this.#screen.width - head.length - tail.length - 1))
    return head + this.#screen.bar(done, width) + dim(tail)
  }

  #images({ spec }: PlannedTrial): number {
    return trainedImages(spec, this.#dataSet)
  }

  #imagesLeft(trial: PlannedTrial): number {
    if (this.#over.has(trial)) return 0
    const progress = this.#running.get(trial)?.progress
    if (!progress) return this.#images(trial)
    const { epoch, epochs, step, stepsPerEpoch } = progress
    return this.#images(trial) * (1 - (epoch - 1 + step / stepsPerEpoch) / epochs)
  }

  /**
   * What is left by each network's own speed, shared by the workers; never less than the
   * slowest trial under way.
   */
  #secondsLeft(): number {
    const rates = [...this.#rates.values()]
    if (rates.length === 0) return Number.NaN
    const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length
    const unfinished = this.#trials.filter(trial => !this.#over.has(trial))
    const each = unfinished.map(
      trial => this.#imagesLeft(trial) / (this.#rates.get(trial.arm.architecture) ?? mean),
    )
    const shared = each.reduce((sum, seconds) => sum + seconds, 0) / Math.min(this.#workers, each.length)
    return Math.max(0, ...each, shared || 0)
  }
}

function sentence({ arm, seed }: PlannedTrial, record: EpochRecord, epochs: number): string {
  const { epoch, trainLoss, trainAccuracy, imagesPerSecond } = record
  return `${arm.name}, seed ${seed}: epoch ${epoch}/${epochs}: loss ${lossText(trainLoss)}, accuracy ${percent(trainAccuracy)}, ${grouped(imagesPerSecond)} images/s`
}
