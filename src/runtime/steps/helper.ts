/** The worker thread of a team's helper: takes pieces of work whenever the team's turn moves on. */
import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import { type Delivery, fail, functionsOf, type HelperData, isOpen, Runnable, slots } from './share.ts'

const { control, memory, port, members, member } = workerData as HelperData
const programs = new Map<number, Runnable>()

/** Waits for a program that is on its way. */
function programOf(number: number): Runnable {
  for (;;) {
    const known = programs.get(number)
    if (known) return known
    const delivery: Delivery | undefined = receiveMessageOnPort(port)?.message
    if (delivery)
      programs.set(delivery.program, new Runnable(functionsOf(delivery, memory), delivery.sizes, members))
  }
}

for (let turn = 0; ; ) {
  Atomics.wait(control, slots.turn, turn)
  turn = Atomics.load(control, slots.turn)
  const program = Atomics.load(control, slots.program)
  const [first, last] = [Atomics.load(control, slots.first), Atomics.load(control, slots.last)]
  Atomics.add(control, slots.active, 1)
  try {
    if (isOpen(control, turn)) programOf(program).runShare(control, turn, member, first, last)
  } catch (error) {
    // This thread's own event would come when the one that waits for it has ended.
    port.postMessage((error as Error).message)
    fail(control)
  }
  Atomics.sub(control, slots.active, 1)
  Atomics.notify(control, slots.active)
}
