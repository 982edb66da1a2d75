/** The worker thread of a team's helper: runs its share of kernels whenever the team's turn moves on. */
import { receiveMessageOnPort, workerData } from 'node:worker_threads'
import { type Delivery, type HelperData, instantiate, type Runnable, runShare, slots } from './share.ts'

const { member, members, control, memory, port } = workerData as HelperData
const programs = new Map<number, Runnable>()

// An int32, as the number that it follows.
for (let turn = 0; ; turn = (turn + 1) | 0) {
  while (Atomics.load(control, slots.turn) === turn) Atomics.wait(control, slots.turn, turn)
  const program = Atomics.load(control, slots.program)
  while (!programs.has(program)) {
    const delivery: Delivery | undefined = receiveMessageOnPort(port)?.message
    if (delivery)
      programs.set(delivery.program, {
        functions: instantiate(delivery.module, memory),
        sizes: delivery.sizes,
      })
  }
  runShare(
    programs.get(program)!,
    Atomics.load(control, slots.first),
    Atomics.load(control, slots.last),
    member,
    members,
  )
  if (Atomics.sub(control, slots.pending, 1) === 1) Atomics.notify(control, slots.pending)
}
