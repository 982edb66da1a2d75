/** The worker thread of a team's helper: takes pieces of work whenever the team's turn moves on. */
import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import {
  type Delivery,
  fail,
  functionsOf,
  type HelperData,
  isOpen,
  Runnable,
  slots,
  stayAwake,
} from './share.ts'

const { control, memory, port, members, member } = workerData as HelperData
const programs = new Map<number, { readonly runnable: Runnable; readonly isAwake: boolean }>()

/** Waits for a program that is on its way. */
function programOf(number: number) {
  for (;;) {
    const known = programs.get(number)
    if (known) return known
    const delivery: Delivery | undefined = receiveMessageOnPort(port)?.message
    if (!delivery) continue
    const runnable = new Runnable(functionsOf(delivery, memory), delivery.sizes, members)
    programs.set(delivery.program, { runnable, isAwake: delivery.isAwake })
  }
}

for (let turn = 0, isAwake = false; ; ) {
  if (isAwake) stayAwake(control, turn)
  Atomics.wait(control, slots.turn, turn)
  turn = Atomics.load(control, slots.turn)
  const program = Atomics.load(control, slots.program)
  const [first, last] = [Atomics.load(control, slots.first), Atomics.load(control, slots.last)]
  Atomics.add(control, slots.active, 1)
  try {
    if (isOpen(control, turn)) {
      const known = programOf(program)
      isAwake = known.isAwake
      known.runnable.runShare(control, turn, member, first, last)
    }
  } catch (error) {
    // This thread's own event would come when the one that waits for it has ended.
    port.postMessage((error as Error).message)
    fail(control)
  }
  Atomics.sub(control, slots.active, 1)
  Atomics.notify(control, slots.active)
}
