/** Checkpoints: all that a trial needs to go on, in one safetensors file. */
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { convMethods } from '../graph/ops/window.ts'
import { type Device, devices } from '../runtime/engine.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import type { HostTensor } from '../util/host-tensor.ts'
import { decodeSafetensors, encodeSafetensors, LONGEST_HEADER } from '../weights/safetensors.ts'
import { writeFileAtomic } from './files.ts'
import { type EpochRecord, specHash, type TrainingSpec } from './spec.ts'

/** Where a trial stands, besides its tensors. */
export interface Position {
  /** Epochs done. */
  readonly epoch: number
  /** Steps done of the epoch under way. */
  readonly step: number
  /** Steps done in all. */
  readonly updates: number
  /** Of the epoch under way: sums over images, in float64, and seconds. */
  readonly running: {
    readonly loss: number
    readonly correct: number
    readonly images: number
    readonly seconds: number
  }
  readonly history: readonly EpochRecord[]
  readonly best: { readonly epoch: number; readonly value: number } | undefined
}

/** What a trial runs on: the same bits are only promised by the same. */
export interface EngineRecord {
  readonly device: Device
  readonly threads: number
  /** `onnxruntime-node 1.30.0` */
  readonly version: string
}

export interface Checkpoint {
  readonly spec: TrainingSpec
  /** The classes' names, so that a prediction needs no data set. */
  readonly classes: readonly string[]
  readonly engine: EngineRecord
  readonly position: Position
  /** Parameters, buffers and optimizer slots by name. */
  readonly state: Readonly<Record<string, HostTensor>>
  /** The best epoch's parameters and buffers, where early stopping keeps them. */
  readonly best: Readonly<Record<string, HostTensor>> | undefined
}

const BEST = 'best/'
const FORMAT = 'fovea checkpoint 1'

/** The checkpoint of a trial's folder. */
export const checkpointIn = (directory: string): string => join(directory, 'checkpoint.safetensors')

/** The trained values of a trial: those of its best epoch where early stopping kept them, else the last. */
export function trainedValues({ state, best }: Checkpoint): Checkpoint['state'] {
  if (best) return best
  return Object.fromEntries(Object.entries(state).filter(([name]) => !name.startsWith('optimizer/')))
}

/**
 * Writes a checkpoint under a temporary name and renames it: a reader finds the old one or the new one,
 * whole.
 */
export async function saveCheckpoint(
  path: string,
  { spec, classes, engine, position, state, best }: Checkpoint,
): Promise<void> {
  const kept = Object.fromEntries(Object.entries(best ?? {}).map(([name, value]) => [BEST + name, value]))
  const metadata = {
    format: FORMAT,
    spec: JSON.stringify(spec),
    classes: JSON.stringify(classes),
    engine: JSON.stringify(engine),
    position: JSON.stringify(position),
  }
  await writeFileAtomic(path, encodeSafetensors({ ...state, ...kept }, metadata))
}

const recordSchema = z.object({
  epoch: z.number(),
  learningRate: z.number(),
  trainLoss: z.number(),
  trainAccuracy: z.number(),
  validationLoss: z.number().optional(),
  validationAccuracy: z.number().optional(),
  seconds: z.number(),
  imagesPerSecond: z.number(),
})

const positionSchema = z.object({
  epoch: z.number(),
  step: z.number(),
  updates: z.number(),
  running: z.object({ loss: z.number(), correct: z.number(), images: z.number(), seconds: z.number() }),
  history: z.array(recordSchema),
  best: z.object({ epoch: z.number(), value: z.number() }).optional(),
})

const engineSchema = z.object({
  device: z.enum(devices),
  threads: z.number(),
  version: z.string(),
})

const specSchema = z.looseObject({
  model: z.looseObject({
    name: z.string(),
    input: z.tuple([z.number(), z.number(), z.number()]),
    layers: z.array(
      z.object({
        name: z.string(),
        layer: z.looseObject({ layer: z.string() }),
        inputs: z.array(z.string()),
      }),
    ),
    output: z.string(),
  }),
  dataSet: z.object({ name: z.string(), hash: z.string() }),
  split: z.looseObject({}),
  loss: z.looseObject({ loss: z.string() }),
  optimizer: z.looseObject({ optimizer: z.string() }),
  augmentation: z.array(z.looseObject({ augmentation: z.string() })).optional(),
  batchSize: z.int().positive(),
  epochs: z.int().positive(),
  seed: z.int().nonnegative(),
  weights: z.looseObject({ source: z.string(), hash: z.string() }).optional(),
  frozen: z.array(z.string()).optional(),
  convolution: z.enum(convMethods).optional(),
  backbone: z.object({ layers: z.array(z.string()), learningRate: z.number() }).optional(),
})

/** Whether a file is a checkpoint, whatever its name; false where it cannot be read. */
export async function isCheckpoint(path: string): Promise<boolean> {
  const file = await open(path).catch(() => undefined)
  try {
    const start = await file?.read(new Uint8Array(8), 0, 8, 0)
    if (!file || start?.bytesRead !== 8) return false
    const length = Number(new DataView(start.buffer.buffer).getBigUint64(0, true))
    if (length > LONGEST_HEADER) return false
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, 8)
    return buffer.subarray(0, bytesRead).includes(`"format":"${FORMAT}"`)
  } catch {
    return false
  } finally {
    await file?.close()
  }
}

/**
 * Reads a checkpoint.
 *
 * @throws UsageError where there is no such file; FoveaError where it is truncated, or no checkpoint of Fovea
 */
export async function loadCheckpoint(path: string): Promise<Checkpoint> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new UsageError(`no checkpoint at ${path}`)
    throw new FoveaError(`${path}: cannot be read (${error.code ?? error.message})`)
  })
  const { tensors, metadata } = decodeSafetensors(bytes, path)
  if (metadata.format !== FORMAT)
    throw new FoveaError(
      `${path}: expected a checkpoint of Fovea ("${FORMAT}"), received "${metadata.format ?? 'none'}"`,
    )
  const spec = parsed(specSchema, metadata.spec, path, 'spec') as unknown as TrainingSpec
  const classes = parsed(z.array(z.string()), metadata.classes, path, 'classes')
  const engine = parsed(engineSchema, metadata.engine, path, 'engine')
  const position = parsed(positionSchema, metadata.position, path, 'position') as unknown as Position
  const state: Record<string, HostTensor> = {}
  const best: Record<string, HostTensor> = {}
  for (const [name, value] of Object.entries(tensors)) {
    if (name.startsWith(BEST)) best[name.slice(BEST.length)] = value
    else state[name] = value
  }
  return { spec, classes, engine, position, state, best: Object.keys(best).length > 0 ? best : undefined }
}

function parsed<T>(schema: z.ZodType<T>, text: string | undefined, path: string, what: string): T {
  let value: unknown
  try {
    value = JSON.parse(text ?? '')
  } catch {
    throw new FoveaError(`${path}: its ${what} is not JSON: the checkpoint is damaged`)
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new FoveaError(`${path}: its ${what} is damaged at "${issue?.path.join('.')}": ${issue?.message}`)
}

/** Throws unless a checkpoint belongs to this specification; only the number of epochs may differ. */
export function checkResumable(path: string, checkpoint: Checkpoint, spec: TrainingSpec): void {
  const alike = (other: TrainingSpec) => specHash({ ...other, epochs: 0 })
  if (alike(checkpoint.spec) === alike(spec)) return
  const differing = Object.keys(spec).filter(
    name =>
      name !== 'epochs' &&
      JSON.stringify(spec[name as keyof TrainingSpec]) !==
        JSON.stringify(checkpoint.spec[name as keyof TrainingSpec]),
  )
  const [name = 'specification'] = differing
  const show = (of: TrainingSpec) => {
    if (name === 'model') return `"${of.model.name}"`
    if (name === 'weights') return of.weights ? `${of.weights.source} (SHA-256 ${of.weights.hash})` : 'none'
    return JSON.stringify(of[name as keyof TrainingSpec]) ?? 'none'
  }
  throw new FoveaError(
    `${path}: a checkpoint of another trial: its ${name} is ${show(checkpoint.spec)}, expected ${show(spec)}`,
  )
}
