import { writeFile } from 'node:fs/promises'
import {
  adam,
  compileTraining,
  crossEntropy,
  decodeModel,
  dense,
  flatten,
  formatModel,
  rescaling,
  sequential,
} from 'fovea'

const model = sequential([rescaling({ scale: 1 / 255 }), flatten(), dense({ units: 10 })], {
  name: 'linear',
  input: [28, 28, 1],
})
const program = compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize: 32 })

await writeFile(process.argv[2] ?? 'linear.onnx', program.bytes)
console.log(formatModel(decodeModel(program.bytes)))
