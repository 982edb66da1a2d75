/** Where the time of a training step goes: by pass, operator and layer, measured by ONNX Runtime's profiler. */
import { originOfName } from '../compile/node-names.ts'
import { compileTraining } from '../compile/train-program.ts'
import type { DataSet } from '../data/data-set.ts'
import { minibatchOrder, splitTraining } from '../data/split.ts'
import type { Pass } from '../graph/node.ts'
import { convolutionForms } from '../nn/convolution-forms.ts'
import { type Cost, costOfNode, type StepCost, stepCost, stepNodes } from '../onnx/cost.ts'
import { decodeModel } from '../onnx/decode.ts'
import type { TypedNode } from '../onnx/shapes.ts'
import type { Engine, NodeTiming, Program } from '../runtime/engine.ts'
import { median } from '../stats/summary.ts'
import { checkInteger, FoveaError, UsageError } from '../util/errors.ts'
import type { HostTensor } from '../util/host-tensor.ts'
import { checkClasses } from './evaluate.ts'
import { STORED_TRAIN, storeTrainingImages } from './fit.ts'
import { checkSpec, type TrainingSpec } from './spec.ts'
import { loadWithState, stepFeeds } from './steps.ts'
import { checkStart } from './transfer.ts'

/**
 * What nodes take and do in one step: the median of the measured steps, node by node, so that what other
 * processes take from some of them does not show; and their share of the time of all nodes.
 */
export interface Measured extends Cost {
  readonly seconds: number
  /** 0 to 1. */
  readonly share: number
  /** Calls of nodes. */
  readonly calls: number
}

/** `runtime`: of nodes that ONNX Runtime inserted. */
export type ProfiledPass = Pass | 'runtime'

/** One node, as ONNX Runtime runs it. */
export interface ProfiledNode extends Measured {
  /** As in the program; fused nodes have ONNX Runtime's additions. */
  readonly name: string
  readonly op: string
  readonly pass: ProfiledPass
  readonly layer: string
}

export interface ProfiledLayer extends Measured {
  /** In brackets, as `(loss)`, what is no layer of the model. */
  readonly name: string
  readonly kind: string | undefined
  /** How its convolutions are computed. */
  readonly forms: readonly string[]
  readonly passes: Readonly<Record<ProfiledPass, Measured>>
}

export interface Profile {
  /** How many steps were measured. */
  readonly steps: number
  /**
   * Seconds of a step as training runs it, and with the profiler, which takes its own time for each node:
   * the median of some calls, and the mean of one.
   */
  readonly stepSeconds: number
  readonly profiledStepSeconds: number
  /** What a step costs as the program was written, before ONNX Runtime fused nodes. */
  readonly program: StepCost
  readonly programHash: string
  /** All nodes of a step. */
  readonly total: Measured
  readonly passes: Readonly<Record<ProfiledPass, Measured>>
  /** By operator, the longest first. */
  readonly ops: readonly (Measured & { readonly op: string })[]
  /** The model's layers in order, then what is no layer. */
  readonly layers: readonly ProfiledLayer[]
  /** The longest first. */
  readonly nodes: readonly ProfiledNode[]
}

export interface ProfileOptions {
  /** Of the device `cpu`. */
  readonly engine: Engine
  /** How many steps to measure. Default: as many as take two seconds, but 5 to 200. */
  readonly steps?: number
  /** As in `FitOptions`. */
  readonly weights?: Readonly<Record<string, HostTensor>>
}

/** Steps before any is measured: the first ones ask the system for memory, and take several times as long. */
const WARM_UP = 3
const SECONDS = 2
const MOST_CALLS = 5
const [LEAST_STEPS, MOST_STEPS] = [5, 200]
/** What ONNX Runtime records, with room for what is not of a step. */
const MOST_RECORDED = 900_000

/**
 * Trains for some steps, measured and unmeasured; what is trained is forgotten.
 *
 * @throws UsageError for a specification that cannot be run, an engine that is not on the CPU (elsewhere only
 *   the launch of a node would be measured), or more steps than can be recorded
 */
export async function profileTraining(
  spec: TrainingSpec,
  dataSet: DataSet,
  { engine, steps: asked, weights }: ProfileOptions,
): Promise<Profile> {
  checkSpec(spec)
  checkClasses(spec.model, dataSet)
  checkStart(spec, weights)
  if (asked !== undefined) checkInteger('profile', 'steps', asked, 1)
  if (engine.device !== 'cpu')
    throw new UsageError(`profile: expected an engine on the device cpu, received ${engine.device}`)
  const next = minibatches(spec, dataSet)
  const compiled = compileTraining(spec)
  const model = decodeModel(compiled.bytes)
  const program = stepCost(model)
  const recordable = Math.floor(MOST_RECORDED / program.nodes) - WARM_UP
  if (asked !== undefined && asked > recordable)
    throw new UsageError(
      `profile: expected at most ${recordable} steps of ${program.nodes} nodes, which is what ONNX Runtime records, received ${asked}`,
    )
  await storeTrainingImages(engine, dataSet)
  let updates = 0
  const run = async (loaded: Program, count: number): Promise<number> => {
    const feeds = stepFeeds(compiled, spec, next(count), updates)
    updates += count
    const began = performance.now()
    await loaded.run({ feeds, bind: STORED_TRAIN, keep: compiled.keep })
    return (performance.now() - began) / 1000 / count
  }
  /** Seconds of a step, by calls of enough steps that a call itself costs nothing. */
  const timed = async (loaded: Program, count: number): Promise<number> => {
    const calls = Math.max(1, Math.min(MOST_CALLS, Math.floor(count / LEAST_STEPS)))
    const seconds: number[] = []
    for (let call = 0; call < calls; call++)
      seconds.push(await run(loaded, Math.floor((count + call) / calls)))
    return median(seconds)
  }
  const plain = await loadWithState(engine, compiled, spec.seed, weights)
  await run(plain, WARM_UP)
  const most = Math.min(MOST_STEPS, recordable)
  const steps =
    asked ?? Math.max(LEAST_STEPS, Math.min(most, Math.round(SECONDS / (await run(plain, LEAST_STEPS)))))
  const stepSeconds = await timed(plain, steps)
  // Before the other is loaded: large networks fit in memory once.
  await plain.release()
  const profiled = await engine.load(compiled.bytes, { profile: true })
  await run(profiled, WARM_UP)
  const profiledStepSeconds = await run(profiled, steps)
  const [, measured] = await profiled.profile()
  await profiled.release()
  if (!measured)
    throw new FoveaError(
      `profile: ONNX Runtime's record was full before ${steps} steps had ended; expected fewer`,
    )
  const timings = measured.nodes.filter(({ loop }) => loop !== undefined)
  return {
    steps,
    stepSeconds,
    profiledStepSeconds,
    program,
    programHash: compiled.hash,
    ...summary(timings, steps, spec, stepNodes(model)),
  }
}

/** The rows of minibatches, one epoch after the other; as in training, except that all are of full size. */
function minibatches(spec: TrainingSpec, { train, classes }: DataSet): (count: number) => Int32Array {
  const { seed, batchSize } = spec
  const { train: rows } = splitTraining(train.labels, classes.length, { ...spec.split, seed })
  if (batchSize > rows.length)
    throw new UsageError(
      `profile: expected a batch size of at most the ${rows.length} images that are trained on, received ${batchSize}`,
    )
  const order = minibatchOrder(rows, seed, 0)
  let at = 0
  return count => Int32Array.from({ length: count * batchSize }, () => order[at++ % order.length]!)
}

type Summary = Pick<Profile, 'total' | 'passes' | 'ops' | 'layers' | 'nodes'>

function summary(
  timings: readonly NodeTiming[],
  steps: number,
  { model, batchSize, convolution }: TrainingSpec,
  written: readonly TypedNode[],
): Summary {
  const known = new Map(written.map(typed => [typed.node.name, typed]))
  const whole = timings.reduce((sum, { calls, medianSeconds }) => sum + calls * medianSeconds, 0) / steps
  const nodes = timings
    .map(({ name, op, calls, medianSeconds, inputs, outputs }): ProfiledNode => {
      // Of a node that was fused or inserted only ONNX Runtime knows the shapes.
      const typed = known.get(name)
      const { multiplyAdds, bytes } =
        typed?.node.op === op ? costOfNode(op, typed.inputs, typed.outputs) : costOfNode(op, inputs, outputs)
      const times = calls / steps
      return {
        name,
        op,
        ...(originOfName(name) ?? { pass: 'runtime', layer: '(ONNX Runtime)' }),
        seconds: medianSeconds * times,
        share: (medianSeconds * times) / whole,
        calls: times,
        multiplyAdds: multiplyAdds * times,
        bytes: bytes * times,
      }
    })
    .toSorted((a, b) => b.seconds - a.seconds)
  const byOp = Map.groupBy(nodes, ({ op }) => op)
  const byLayer = Map.groupBy(nodes, ({ layer }) => layer)
  const kinds = new Map(model.layers.map(({ name, layer }) => [name, layer.layer]))
  const forms = convolutionForms(model, batchSize, convolution ? { convolution } : {})
  const names = [...new Set([...kinds.keys(), ...byLayer.keys()])]
  return {
    total: sumOf(nodes),
    passes: byPass(nodes),
    ops: [...byOp]
      .map(([op, members]) => ({ op, ...sumOf(members) }))
      .toSorted((a, b) => b.seconds - a.seconds),
    layers: names.map(name => {
      const members = byLayer.get(name) ?? []
      const [kind, form] = [kinds.get(name), forms.get(name) ?? []]
      return { name, kind, forms: form, ...sumOf(members), passes: byPass(members) }
    }),
    nodes,
  }
}

function byPass(nodes: readonly ProfiledNode[]): Record<ProfiledPass, Measured> {
  const of = (pass: ProfiledPass) => sumOf(nodes.filter(node => node.pass === pass))
  return { forward: of('forward'), backward: of('backward'), update: of('update'), runtime: of('runtime') }
}

/** What several take together. */
export function sumOf(parts: readonly Measured[]): Measured {
  const total = (key: keyof Measured) => parts.reduce((sum, part) => sum + part[key], 0)
  return {
    seconds: total('seconds'),
    share: total('share'),
    calls: total('calls'),
    multiplyAdds: total('multiplyAdds'),
    bytes: total('bytes'),
  }
}
