/** `fovea evaluate`: a trained model on a test split. */
import type { Command } from 'commander'
import type { DataSet } from '../data/data-set.ts'
import { trainedValues } from '../train/checkpoint.ts'
import { evaluateTest } from '../train/trial.ts'
import { UsageError } from '../util/errors.ts'
import { sameShape, showShape } from '../util/host-tensor.ts'
import { warn } from './failure.ts'
import { grouped, lossText, percent } from './format.ts'
import { loadData } from './load-data.ts'
import { addCommonOptions, addEngineOptions, addSkipOption, type EngineFlags } from './options.ts'
import { openRun } from './run-folder.ts'
import { colorsOf } from './terminal.ts'
import { withEngine } from './with-engine.ts'

interface Flags extends EngineFlags {
  readonly dataset?: string
  readonly data?: string
  readonly skipUndecodable?: boolean
  readonly json?: boolean
}

const EXAMPLES = `
Examples:
  fovea evaluate runs/my-run
  fovea evaluate runs/my-run --dataset mnist --json`

export function addEvaluateCommand(program: Command): void {
  const command = program
    .command('evaluate')
    .description("test loss and accuracy of a run's checkpoint")
    .argument('<run>', "a run's folder")
    .option('--dataset <name>', "another data set of the same shape; default: the run's own")
    .option('--data <dir>', "a folder with the data set's files")
  addSkipOption(command)
  addEngineOptions(command, "threads (default: the run's own)")
  addCommonOptions(command).addHelpText('after', EXAMPLES).action(evaluate)
}

async function evaluate(run: string, flags: Flags): Promise<void> {
  const checkpoint = await openRun(run)
  const { spec, classes, engine: recorded } = checkpoint
  const { threads = recorded.threads, device = recorded.device } = flags
  const { dataSet, test } = await withEngine({ threads, device }, async opening => {
    const dataSet = await loadData(flags.dataset ?? spec.dataSet.name, flags.data, flags.skipUndecodable)
    checkFits(run, spec.model.input, classes, dataSet)
    if (dataSet.name === spec.dataSet.name && dataSet.hash !== spec.dataSet.hash)
      warn(`${dataSet.name} from ${dataSet.source} is not the copy that ${run} was trained on`)
    const engine = await opening
    await engine.write(trainedValues(checkpoint))
    return { dataSet, test: await evaluateTest(engine, spec, dataSet) }
  })
  if (flags.json) {
    const document = {
      run,
      model: spec.model.name,
      dataSet: { name: dataSet.name, hash: dataSet.hash, source: dataSet.source },
      test,
    }
    process.stdout.write(`${JSON.stringify(document, undefined, 2)}\n`)
    return
  }
  const { bold } = colorsOf(process.stdout)
  process.stdout.write(
    `test accuracy ${bold(percent(test.accuracy))}, loss ${lossText(test.loss)} on ${grouped(test.images)} images of ${dataSet.title}\n`,
  )
}

function checkFits(
  run: string,
  input: readonly number[],
  classes: readonly string[],
  { name, imageShape, classes: received }: DataSet,
): void {
  if (!sameShape(input, imageShape))
    throw new UsageError(
      `${run}: the model expects images ${showShape(input)} (height, width, channels), received ${showShape(imageShape)} from ${name}`,
    )
  if (classes.length !== received.length)
    throw new UsageError(`${run}: the model knows ${classes.length} classes, ${name} has ${received.length}`)
}
