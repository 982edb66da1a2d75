/** Model + loss + optimizer -> a training program: whole epochs in one call of the runtime. */
import { gradients } from '../autodiff/gradients.ts'
import { origins, type Tensor, withOrigin } from '../graph/node.ts'
import { add, mul } from '../graph/ops/elementwise.ts'
import { reduceMean, sumAll } from '../graph/ops/reduce.ts'
import { reshape, split } from '../graph/ops/shape.ts'
import { input } from '../graph/ops/source.ts'
import type { ConvMethod } from '../graph/ops/window.ts'
import { augmentationStreams, augmentByKey } from '../nn/augment/augment.ts'
import type { Augmentation } from '../nn/augment/descriptions.ts'
import { type Buffer, buildModel, type Parameter, SMALL_PARAMETER } from '../nn/build.ts'
import { clipGradients } from '../nn/clipping.ts'
import { type Loss, lossPerExample } from '../nn/losses.ts'
import type { Model } from '../nn/model.ts'
import { type Optimizer, optimizerRule } from '../nn/optimizers.ts'
import { peakLearningRate } from '../nn/schedules.ts'
import { encodeModel } from '../onnx/encode.ts'
import type { ValueInfo } from '../onnx/model.ts'
import { checkInteger, checkRange, UsageError } from '../util/errors.ts'
import { hashBytes } from '../util/hash.ts'
import { type Shape, sizeOf } from '../util/host-tensor.ts'
import { modelOf } from './emit.ts'
import {
  type Carried,
  dataInputs,
  gatherMinibatch,
  isCorrect,
  keyInputs,
  keyOfStep,
  loopGraph,
  nameOfInput,
  type ProgramBytes,
  packed,
  predictedClass,
  rowOfStep,
  stateOf,
  typeOf,
  unpacked,
} from './program.ts'

/** A tensor that lives from step to step, and is saved in a checkpoint. */
export interface StateTensor {
  readonly name: string
  /** `frozen`: a parameter that is not trained. */
  readonly kind: 'parameter' | 'frozen' | 'buffer' | 'slot'
  readonly shape: Shape
  /** Drawn anew before each epoch. */
  readonly redraw: boolean
  /** Values to start from; float32. */
  initial(seed: number, epoch?: number): Float32Array
}

/** A compiled training program. */
export interface TrainProgram extends ProgramBytes {
  readonly batchSize: number
  readonly state: readonly StateTensor[]
  /** Names of the random streams: a uint32 for each step and stream. */
  readonly randomKeys: readonly string[]
  /**
   * Numbers that the optimizer needs for a step (counted from 1) at the head's learning rate; float32 in the
   * program.
   */
  scalars(step: number, learningRate: number): readonly number[]
  /** Outputs that stay with the engine: output -> stored name. */
  readonly keep: Readonly<Record<string, string>>
}

export interface TrainSpec {
  readonly model: Model
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly batchSize: number
  /** What becomes of the images of each minibatch, in this order. Default: nothing. */
  readonly augmentation?: readonly Augmentation[]
  /** Names of the layers that are not trained: see `BuildOptions.frozen`. Default: none. */
  readonly frozen?: readonly string[]
  /** Layers that learn at a rate of their own. Default: none. */
  readonly backbone?: BackboneRate
  /** How convolutions are computed where they can be. Default: as is fastest. */
  readonly convolution?: ConvMethod
}

/** Layers that learn at another rate than the optimizer's. */
export interface BackboneRate {
  readonly layers: readonly string[]
  /** Where the optimizer's rate is a schedule, the peak of the same schedule, scaled. */
  readonly learningRate: number
}

/**
 * Compiles a training program. Nothing is computed backwards for frozen layers that no trained layer stands
 * before.
 *
 * Inputs: `steps` int64 scalar; `images` uint8 [rows, H, W, C]; `labels` int32 [rows]; `order` int32 [steps,
 * N]: the rows of each minibatch; `scalars` float32 [steps, s]; `keys/STREAM` uint32 [steps, 1] for each
 * random stream; and the state. Outputs: `next/STATE`; `loss` float32 [steps], the minibatch's mean loss with
 * penalties; `correct` float32 [steps]; `finite` float32 scalar, 0 where all parameters are finite and NaN
 * otherwise: activations can hide a NaN.
 *
 * @throws UsageError where a layer does not fit its input, or an option is out of range
 */
export function compileTraining(spec: TrainSpec): TrainProgram {
  const { model, loss, batchSize, augmentation = [], frozen = [], convolution } = spec
  checkInteger('compileTraining', 'batchSize', batchSize, 1)
  const batch = gatherMinibatch(model, batchSize, images =>
    withOrigin(augmentation.length > 0 ? origins.augment : images.node.origin, () =>
      augmentByKey(images, augmentation, keyOfStep),
    ),
  )
  const built = buildModel(model, batch.images, {
    training: true,
    frozen,
    ...(convolution ? { convolution } : {}),
    randomKey: keyOfStep,
  })
  if (built.parameters.length === 0)
    throw new UsageError(
      `model "${model.name}": expected at least one layer with parameters, received none to train`,
    )
  const trained = built.parameters.filter(parameter => !parameter.frozen)
  if (trained.length === 0)
    throw new UsageError(
      `model "${model.name}": expected at least one layer to train, received one whose layers with parameters are all frozen`,
    )
  const randomKeys = [...built.randomKeys, ...augmentationStreams(augmentation)]
  const { total, correct } = withOrigin(origins.loss, () => {
    const mean = reshape(reduceMean(lossPerExample(loss, built.logits, batch.labels)), [])
    return {
      total: built.penalty ? add(mean, built.penalty) : mean,
      correct: sumAll(isCorrect(predictedClass(built.logits), batch.labels)),
    }
  })
  const update = withOrigin(origins.optimizer, () => updateOf(trained, total, spec))
  const shared: ValueInfo[] = [
    ...dataInputs(model, batchSize),
    { name: 'scalars', dtype: 'float32', shape: ['steps', update.scalarNames.length] },
    ...keyInputs(randomKeys),
    ...built.parameters.filter(parameter => parameter.frozen).map(({ tensor }) => typeOf(tensor)),
    ...built.buffers.filter(buffer => !buffer.next).map(buffer => typeOf(buffer.tensor)),
  ]
  const carried: Carried[] = [
    ...update.carried,
    ...built.buffers.flatMap(({ tensor, next }) => (next ? [{ state: tensor, next }] : [])),
  ]
  const finite = trained
    .map(({ name, tensor }) => sumAll(mul(input(`next/${name}`, 'float32', tensor.shape), 0)))
    .reduce(add)
  const graph = loopGraph({
    name: `train ${model.name}`,
    shared,
    carried,
    alias: update.alias,
    perStep: [
      { name: 'loss', tensor: total },
      { name: 'correct', tensor: correct },
    ],
    end: [{ name: 'finite', tensor: finite }],
  })
  const bytes = encodeModel(modelOf(graph))
  return {
    bytes,
    hash: hashBytes(bytes),
    batchSize,
    state: [
      ...built.parameters.flatMap(parameter =>
        parameter.frozen ? [parameterState(parameter)] : update.stateOf(parameter),
      ),
      ...built.buffers.map(bufferState),
    ],
    randomKeys,
    scalars: update.scalars,
    keep: Object.fromEntries(
      stateOf(carried).map(state => [`next/${nameOfInput(state)}`, nameOfInput(state)]),
    ),
  }
}

/** The optimizer's part: new parameters and slots, and the numbers that it needs. */
function updateOf(parameters: readonly Parameter[], total: Tensor, { optimizer, backbone }: TrainSpec) {
  const rule = optimizerRule(optimizer)
  const rates = ratesOf(parameters, optimizer, backbone)
  const scalarNames = rates.flatMap(({ prefix }) => rule.scalarNames.map(name => prefix + name))
  const numbers = split(
    rowOfStep(input('scalars', 'float32', [1, scalarNames.length])),
    0,
    scalarNames.map(() => 1),
  )
  const inputs = parameters.map(inputOf)
  const clipped = clipGradients(gradients(total, inputs), optimizer)
  const gradientOf = new Map(inputs.map((tensor, i) => [tensor, clipped[i]!]))
  const slotOf = (slot: string, { name, tensor }: Parameter) =>
    input(`optimizer/${slot}/${name}`, 'float32', tensor.shape)
  const carried: Carried[] = []
  const alias = new Map<Tensor, Tensor>()
  for (const [r, { prefix, members: own }] of rates.entries()) {
    const first = r * rule.scalarNames.length
    const scalars = Object.fromEntries(
      rule.scalarNames.map((name, i) => [name, reshape(numbers[first + i]!, [])]),
    )
    for (const group of groupsOf(own)) {
      const layer = group.length === 1 ? group[0]!.layer : '(small parameters)'
      withOrigin({ pass: 'update', layer }, () => updateGroup(group, `packed/${prefix}`, scalars))
    }
  }

  function updateGroup(
    group: readonly Parameter[],
    pack: string,
    scalars: Readonly<Record<string, Tensor>>,
  ): void {
    const [first] = group
    const transposed = first?.transposed !== undefined
    const single = group.length === 1
    const members = group.map(inputOf)
    const size = members.reduce((sum, tensor) => sum + sizeOf(tensor.shape), 0)
    const state = single ? inputOf(first!) : input(`${pack}parameters`, 'float32', [size])
    const slots = Object.fromEntries(
      rule.slots.map(slot => [
        slot,
        single && !transposed
          ? slotOf(slot, first!)
          : input(`${transposed ? `transposed/${first!.name}/` : pack}${slot}`, 'float32', state.shape),
      ]),
    )
    const gradient = single ? gradientOf.get(state)! : packed(members.map(tensor => gradientOf.get(tensor)!))
    const after = rule.update(state, gradient, slots, scalars)
    const known = (tensors: readonly Tensor[]) =>
      single && !transposed ? {} : { members: tensors, transposed }
    carried.push({
      state,
      next: after.parameter,
      ...known(transposed ? [input(first!.name, 'float32', first!.tensor.shape)] : members),
    })
    for (const slot of rule.slots)
      carried.push({
        state: slots[slot]!,
        next: after.slots[slot]!,
        ...known(group.map(parameter => slotOf(slot, parameter))),
      })
    if (!single) for (const [i, piece] of unpacked(state, members).entries()) alias.set(members[i]!, piece)
  }

  const stateOfParameter = (parameter: Parameter): StateTensor[] => {
    const { shape } = parameter.tensor
    const slots = rule.slots.map(
      (slot): StateTensor => ({
        name: nameOfInput(slotOf(slot, parameter)),
        kind: 'slot',
        shape,
        redraw: false,
        initial: () => new Float32Array(sizeOf(shape)),
      }),
    )
    return [parameterState(parameter), ...slots]
  }
  const scalarsOf = (step: number, learningRate: number) =>
    rates.flatMap(({ factor }) => {
      const values = rule.scalars(step, learningRate * factor)
      return rule.scalarNames.map(name => values[name]!)
    })
  return { carried, alias, stateOf: stateOfParameter, scalarNames, scalars: scalarsOf }
}

/** Parameters that learn at one rate. */
interface Rate {
  /** Of the names of their scalars and of their packed state. */
  readonly prefix: string
  /** Their rate is the optimizer's times this. */
  readonly factor: number
  readonly members: readonly Parameter[]
}

function ratesOf(
  parameters: readonly Parameter[],
  optimizer: Optimizer,
  backbone: BackboneRate | undefined,
): Rate[] {
  if (!backbone) return [{ prefix: '', factor: 1, members: parameters }]
  const where = 'backbone'
  checkRange(where, 'learningRate', backbone.learningRate, 0)
  const slow = parameters.filter(({ layer }) => backbone.layers.includes(layer))
  if (slow.length === 0)
    throw new UsageError(
      `${where}: expected at least one trained layer to learn at ${backbone.learningRate}, received none: ${backbone.layers.join(', ')}`,
    )
  const peak = peakLearningRate(optimizer.learningRate)
  if (peak === 0)
    throw new UsageError(`${where}: a rate of its own needs an optimizer's rate above 0, received 0`)
  return [
    { prefix: '', factor: 1, members: parameters.filter(parameter => !slow.includes(parameter)) },
    { prefix: 'backbone/', factor: backbone.learningRate / peak, members: slow },
  ].filter(({ members }) => members.length > 0)
}

/** The parameters that are updated together: all small ones, each other one by itself. */
function groupsOf(parameters: readonly Parameter[]): Parameter[][] {
  const small = parameters.filter(({ tensor }) => sizeOf(tensor.shape) <= SMALL_PARAMETER)
  return small.length > 1 ? [small, ...separate(parameters, small)] : separate(parameters, [])
}

/** The tensor that a step reads a parameter from, and differentiates by. */
const inputOf = ({ tensor, transposed }: Parameter): Tensor => transposed ?? tensor

/** Each parameter that is not in `others`, as a group of its own. */
function separate(parameters: readonly Parameter[], others: readonly Parameter[]): Parameter[][] {
  return parameters.filter(parameter => !others.includes(parameter)).map(parameter => [parameter])
}

function parameterState({ name, tensor, frozen, initial }: Parameter): StateTensor {
  return { name, kind: frozen ? 'frozen' : 'parameter', shape: tensor.shape, redraw: false, initial }
}

function bufferState({ name, tensor, redraw, initial }: Buffer): StateTensor {
  return { name, kind: 'buffer', shape: tensor.shape, redraw: redraw === 'epoch', initial }
}
