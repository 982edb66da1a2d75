/** An engine for a command. */
import type { Engine, EngineOptions } from '../runtime/engine.ts'
import { openEngine } from '../runtime/node.ts'
import type { EngineFlags } from './options.ts'

/**
 * Runs `work` with an engine that opens while `work` does what needs none yet, a data set say; closes it at the end, or
 * when `work` fails.
 */
export async function withEngine<R>(
  { threads, device }: EngineFlags,
  work: (opening: Promise<Engine>) => Promise<R>,
): Promise<R> {
  const options: EngineOptions = {
    ...(threads === undefined ? {} : { threads }),
    ...(device === undefined ? {} : { device }),
  }
  const opening = openEngine(options)
  // Where opening fails, that is for `work` to say, unless it has failed before.
  const opened = opening.catch(() => undefined)
  try {
    return await work(opening)
  } finally {
    await (await opened)?.close()
  }
}
