/** What `fovea train` shows on stderr while it trains. */
import type { EpochRecord, TrainEvent } from '../train/spec.ts'
import { clock, duration, grouped, lossText, percent, plural } from './format.ts'
import { Screen } from './screen.ts'

type Progress = Extract<TrainEvent, { type: 'progress' }>

/** Where nothing moves on a screen, a line says so often that a long epoch is under way. */
const LINE_EVERY_SECONDS = 60

export class TrainDisplay {
  readonly #screen = new Screen()
  readonly #title: string
  readonly #folder: string
  #validated = false
  #progress: Progress | undefined
  #stopping = false
  #saidAt = performance.now()

  /** What is trained, and where it is kept. */
  constructor(title: string, folder: string) {
    this.#title = title
    this.#folder = folder
  }

  event(event: TrainEvent): void {
    switch (event.type) {
      case 'begin':
        this.#begin(event)
        return
      case 'progress':
        this.#progress = event
        if (!this.#screen.live && performance.now() - this.#saidAt >= 1000 * LINE_EVERY_SECONDS)
          this.#say(underWay(event))
        return
      case 'epoch':
        this.#say(
          this.#screen.live ? this.#row(event.record, event.epochs) : sentence(event.record, event.epochs),
        )
        return
      case 'stopped':
        this.#screen.line(
          `  stopped early after epoch ${event.epoch}: the parameters of epoch ${event.bestEpoch} are kept`,
        )
    }
  }

  /** The first Ctrl-C. */
  stopping(): void {
    this.#stopping = true
    if (!this.#screen.live) this.#screen.line('stopping: writing the checkpoint')
  }

  end(): void {
    this.#screen.hide()
  }

  #say(line: string): void {
    this.#screen.line(line)
    this.#saidAt = performance.now()
  }

  #begin(event: Extract<TrainEvent, { type: 'begin' }>): void {
    const { parameters, frozenParameters, trainImages, validationImages, epoch, step } = event
    const { bold, dim } = this.#screen.colors
    this.#screen.line(`${bold(this.#title)}  ${dim(this.#folder)}`)
    this.#validated = validationImages > 0
    const validation = this.#validated ? `, ${grouped(validationImages)} to validate` : ''
    const frozen = frozenParameters > 0 ? ` to train, ${grouped(frozenParameters)} frozen` : ''
    this.#screen.line(
      `  ${plural(parameters, 'parameter')}${frozen}, ${grouped(trainImages)} images to train${validation}`,
    )
    if (epoch > 0 || step > 0)
      this.#screen.line(`  going on after ${plural(epoch, 'epoch')} and ${plural(step, 'step')}`)
    if (!this.#screen.live) return
    this.#screen.line()
    this.#screen.line(dim(this.#titles()))
    this.#screen.show(() => this.#paint())
  }

  #titles(): string {
    const validation = this.#validated ? '  validation loss  accuracy' : ''
    return `    epoch    loss  accuracy${validation}  seconds  images/s`
  }

  #row(record: EpochRecord, epochs: number): string {
    const validation = this.#validated
      ? `  ${lossText(record.validationLoss!).padStart(15)}  ${percent(record.validationAccuracy!).padStart(8)}`
      : ''
    return `  ${`${record.epoch}/${epochs}`.padStart(7)}  ${lossText(record.trainLoss).padStart(6)}  ${percent(record.trainAccuracy).padStart(8)}${validation}  ${record.seconds.toFixed(1).padStart(7)}  ${grouped(record.imagesPerSecond).padStart(8)}`
  }

  #paint(): string[] {
    const { dim, yellow } = this.#screen.colors
    if (this.#stopping) return [yellow('  stopping: writing the checkpoint (Ctrl-C again to quit at once)')]
    const progress = this.#progress
    if (!progress) return [dim('  compiling')]
    const { epoch, epochs, step, stepsPerEpoch, loss, accuracy, imagesPerSecond, secondsLeft } = progress
    if (step === stepsPerEpoch && epoch === epochs) return [dim('  testing')]
    const head = `  ${`${epoch}/${epochs}`.padStart(7)}  ${lossText(loss).padStart(6)}  ${percent(accuracy).padStart(8)}  `
    const tail = `  ${grouped(imagesPerSecond).padStart(6)} images/s  ${clock(secondsLeft).padStart(5)} left`
    const width = Math.min(40, Math.max(8, this.#screen.width - head.length - tail.length - 1))
    return [head + this.#screen.bar(step / stepsPerEpoch, width) + dim(tail)]
  }
}

function underWay({ epoch, epochs, step, stepsPerEpoch, loss, accuracy, ...rest }: Progress): string {
  return `epoch ${epoch}/${epochs}, step ${grouped(step)} of ${grouped(stepsPerEpoch)}: loss ${lossText(loss)}, accuracy ${percent(accuracy)}, ${grouped(rest.imagesPerSecond)} images/s, ${duration(rest.secondsLeft)} left`
}

function sentence(record: EpochRecord, epochs: number): string {
  const { epoch, trainLoss, trainAccuracy, validationLoss, validationAccuracy, seconds, imagesPerSecond } =
    record
  const validation =
    validationLoss === undefined
      ? ''
      : `, validation loss ${lossText(validationLoss)}, validation accuracy ${percent(validationAccuracy!)}`
  return `epoch ${epoch}/${epochs}: loss ${lossText(trainLoss)}, accuracy ${percent(trainAccuracy)}${validation}, ${duration(seconds)}, ${grouped(imagesPerSecond)} images/s`
}
