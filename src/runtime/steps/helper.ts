/** The worker thread of a team's helper: takes pieces of work whenever the team's turn moves on. */
import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import { type Delivery, functionsOf, type HelperData, isOpen, Runnable, slots } from './share.ts'

const { control, memory, port, members, member } = workerData as HelperData
const programs = new Map<number, Runnable>()

for (let turn = 0; ; ) {
  Atomics.wait(control, slots.turn, turn)
  turn = Atomics.load(control, slots.turn)
  const program = Atomics.load(control, slots.program)
  const [first, last] = [Atomics.load(control, slots.first), Atomics.load(control, slots.last)]
  if (!isOpen(control, turn)) continue
  while (!programs.has(program)) {
    const delivery: Delivery | undefined = receiveMessageOnPort(port)?.message
    if (delivery)
      programs.set(delivery.program, new Runnable(functionsOf(delivery, memory), delivery.sizes, members))
  }
  programs.get(program)!.runShare(control, turn, member, first, last)
}
