/** Ctrl-C: once to stop at a checkpoint, twice to stop at once. */

/** `npm run` passes a terminal's Ctrl-C on to a process that has had it already. */
const SAME_MILLISECONDS = 400

/**
 * Runs `work` with a signal that the first SIGINT or SIGTERM aborts; the second ends the process with exit
 * code 130. Outside of it signals end the process as usual.
 */
export async function interruptible<T>(
  onInterrupt: () => void,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  let first = 0
  const handle = () => {
    if (controller.signal.aborted) {
      if (performance.now() - first > SAME_MILLISECONDS) process.exit(130)
      return
    }
    first = performance.now()
    controller.abort()
    onInterrupt()
  }
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, handle)
  try {
    return await work(controller.signal)
  } finally {
    // Once interrupted the process is about to end: a late second signal must still find its handler.
    if (!controller.signal.aborted)
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.off(name, handle)
  }
}
