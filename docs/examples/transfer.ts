import {
  architectureNamed,
  frozenBy,
  loadDataSet,
  openEngine,
  openWeights,
  runTrial,
  startFrom,
  trainingSpec,
} from 'fovea'

const folder = process.argv[2] ?? 'runs/transfer'
const data = await loadDataSet('fashion-mnist-subset')
const model = architectureNamed('lenet5').build(data.imageShape, data.classes.length)
const engine = await openEngine()

const directory = `${folder}/first`
const first = await runTrial(trainingSpec(model, data, { epochs: 3 }), data, { engine, directory })

// What the run's network has under the same names and in the same shapes; the rest starts from the seed.
const { weights, values } = startFrom(await openWeights(directory, model.name), model)
const frozen = frozenBy('backbone', model, weights)
const spec = trainingSpec(model, data, { epochs: 1, weights, frozen })
const second = await runTrial(spec, data, { engine, directory: `${folder}/second`, weights: values })
await engine.close()

console.log(
  `${first.parameters} parameters trained, then ${second.parameters}; ${weights.fresh.length} new tensors`,
)
console.log(`test accuracy ${second.test.accuracy}`)
