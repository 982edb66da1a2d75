/** The folder of a reproduction: what was asked for, written down before anything runs, and the result. */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { makeFolder } from '../data/make-folder.ts'
import type { Optimizer } from '../nn/optimizers.ts'
import { devices } from '../runtime/engine.ts'
import { writeFileAtomic } from '../train/files.ts'
import { FoveaError, UsageError } from '../util/errors.ts'
import { scaleNames } from '../zoo/paper.ts'

const FORMAT = 'fovea study 1'

const studySchema = z.object({
  format: z.literal(FORMAT),
  fovea: z.string(),
  paper: z.string(),
  scale: z.enum(scaleNames),
  dataSet: z.object({ name: z.string(), hash: z.string() }),
  seeds: z.array(z.number()),
  epochs: z.number(),
  batchSize: z.number(),
  optimizer: z.looseObject({ optimizer: z.string(), learningRate: z.unknown() }),
  threads: z.number(),
  device: z.enum(devices),
  /** Name and version of what it began to run on; earlier versions did not write it down. */
  runtime: z.string().optional(),
})

/** All that decides the outcome of a reproduction. */
export type Study = Omit<z.infer<typeof studySchema>, 'format' | 'optimizer'> & {
  readonly optimizer: Optimizer
}

const studyIn = (folder: string): string => join(folder, 'study.json')
export const lockIn = (folder: string): string => join(folder, 'study.lock')
export const resultIn = (folder: string): string => join(folder, 'result.json')

/** Writes the study into a folder, which is made where it does not exist and must hold no other. */
export async function writeStudy(folder: string, study: Study): Promise<void> {
  const path = studyIn(folder)
  const taken = await stat(path).then(
    () => true,
    () => false,
  )
  if (taken)
    throw new UsageError(`${folder} holds a study already; expected a new folder, or --resume ${folder}`)
  await makeFolder(folder)
  await writeFileAtomic(path, `${JSON.stringify({ format: FORMAT, ...study }, undefined, 2)}\n`)
}

/** @throws UsageError where the folder holds no study; FoveaError where it holds a damaged one */
export async function readStudy(folder: string): Promise<Study> {
  const path = studyIn(folder)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') throw new UsageError(`no study at ${path}`)
    throw new FoveaError(`${path}: cannot be read (${error.code ?? error.message})`)
  })
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new FoveaError(`${path}: not JSON: the study is damaged`)
  }
  const parsed = studySchema.safeParse(value)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new FoveaError(`${path}: the study is damaged at "${issue?.path.join('.')}": ${issue?.message}`)
  }
  const { format: _, ...study } = parsed.data
  return study as unknown as Study
}
