import {
  bernoulli,
  conv2d,
  dense,
  flatten,
  lateralInhibition,
  loadDataSet,
  maxPooling2d,
  openEngine,
  rescaling,
  runTrial,
  sequential,
  sparseDense,
  trainingSpec,
} from 'fovea'

const data = await loadDataSet('fashion-mnist-subset')
const model = sequential(
  [
    rescaling({ scale: 1 / 255 }),
    conv2d({ filters: 16, kernelSize: 3, activation: 'relu' }),
    lateralInhibition({ radius: 2, strength: 0.1 }),
    maxPooling2d(),
    flatten(),
    sparseDense({ units: 64, connectivity: bernoulli({ density: 0.2 }), activation: 'relu' }),
    dense({ units: data.classes.length }),
  ],
  { name: 'inhibited-and-sparse', input: data.imageShape },
)

const engine = await openEngine()
const result = await runTrial(trainingSpec(model, data, { epochs: 3, seed: 1 }), data, {
  engine,
  directory: process.argv[2] ?? 'runs/example',
})
await engine.close()
console.log(`${result.parameters} parameters, test accuracy ${(100 * result.test.accuracy).toFixed(2)} %`)
