/** The command line's commands. */
import { Command } from 'commander'
import { foveaVersion } from '../train/version.ts'
import { addAugmentCommand } from './augment.ts'
import { addDatasetsCommand } from './datasets.ts'
import { addEvaluateCommand } from './evaluate.ts'
import { addModelsCommand } from './models.ts'
import { addPredictCommand } from './predict.ts'
import { addProfileCommand } from './profile.ts'
import { addReproduceCommand } from './reproduce.ts'
import { addTrainCommand } from './train.ts'

const EXAMPLES = `
Examples:
  fovea reproduce singh-brar-2024                    a paper's claims, anew
  fovea train --model singh-brar/basic --epochs 5    one model
  fovea predict runs/my-run shoe.jpg                 what a picture shows

fovea COMMAND --help tells more.
Exit codes: 0 done, 1 failed, 2 a wrong request, 130 interrupted.`

/** The program with all its commands; errors are thrown, not printed. */
export function createProgram(): Command {
  const program = new Command('fovea')
    .description(
      'A laboratory for image classifiers: trains, compares and reproduces brain-inspired networks',
    )
    .version(foveaVersion)
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .showSuggestionAfterError()
    .addHelpText('after', EXAMPLES)
  addReproduceCommand(program)
  addTrainCommand(program)
  addEvaluateCommand(program)
  addPredictCommand(program)
  addModelsCommand(program)
  addDatasetsCommand(program)
  addAugmentCommand(program)
  addProfileCommand(program)
  return program
}
