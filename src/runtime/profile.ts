/** ONNX Runtime's profile, a trace of events, as timings of nodes. */
import { z } from 'zod'
import type { ValueType } from '../onnx/shapes.ts'
import { median } from '../stats/summary.ts'
import { FoveaError } from '../util/errors.ts'
import type { DType } from '../util/host-tensor.ts'
import type { NodeTiming, RunTiming } from './engine.ts'

/** A tensor: its type's name, and its shape. */
const tensors = z.array(z.record(z.string(), z.array(z.number())))

/** Times are microseconds since the profiler began. */
const eventSchema = z.object({
  cat: z.string(),
  name: z.string(),
  ts: z.number(),
  dur: z.number(),
  args: z.object({
    op_name: z.string().optional(),
    input_type_shape: tensors.optional(),
    output_type_shape: tensors.optional(),
  }),
})

type Event = z.infer<typeof eventSchema>

const KERNEL = '_kernel_time'

/** ONNX Runtime's names of element types. */
const dtypes: Readonly<Record<string, DType>> = {
  float: 'float32',
  double: 'float64',
  int32: 'int32',
  int64: 'int64',
  uint8: 'uint8',
  uint32: 'uint32',
  bool: 'bool',
}

/**
 * The timings of each run in a trace, of which each line is an event.
 *
 * @throws FoveaError where a line is no event
 */
export async function runTimings(lines: AsyncIterable<string>): Promise<RunTiming[]> {
  const runs: RunTiming[] = []
  let nodes: Event[] = []
  // Events come as they end: a run after its nodes, a Loop after those of its body.
  for await (const line of lines) {
    const event = eventOf(line)
    if (event?.cat === 'Node' && event.name.endsWith(KERNEL)) nodes.push(event)
    else if (event?.name === 'model_run') {
      runs.push({ seconds: event.dur / 1e6, nodes: nodeTimings(nodes) })
      nodes = []
    }
  }
  return runs
}

/** The name of the node that a program's steps are the body of. */
export const LOOP = 'Loop'

/** The nodes of several runs of one step as those of a loop of so many iterations. */
export function loopTimings(steps: readonly RunTiming[]): NodeTiming[] {
  const nodes = Map.groupBy(
    steps.flatMap(step => step.nodes),
    ({ name, op }) => JSON.stringify([name, op]),
  )
  return [...nodes.values()].map(members => ({
    ...members[0]!,
    loop: LOOP,
    calls: members.reduce((sum, { calls }) => sum + calls, 0),
    seconds: members.reduce((sum, { seconds }) => sum + seconds, 0),
    medianSeconds: median(members.map(({ medianSeconds }) => medianSeconds)),
  }))
}

function eventOf(line: string): Event | undefined {
  const text = line.trim().replace(/,$/, '')
  if (text === '' || text === '[' || text === ']') return undefined
  try {
    return eventSchema.parse(JSON.parse(text))
  } catch (error) {
    throw new FoveaError(
      `ONNX Runtime's profile cannot be read: ${text.slice(0, 80)}: ${(error as Error).message}`,
    )
  }
}

function nodeTimings(events: readonly Event[]): NodeTiming[] {
  const loops = events.filter(({ args }) => args.op_name === 'Loop')
  const calls = Map.groupBy(events, event => {
    const around = loops.find(other => other !== event && contains(other, event))
    return JSON.stringify([around?.name, event.name])
  })
  return [...calls].map(([id, members]) => {
    const [loop, name] = JSON.parse(id) as [string | null, string]
    const {
      op_name: op = '',
      input_type_shape: inputs = [],
      output_type_shape: outputs = [],
    } = members[0]!.args
    const durations = members.map(({ dur }) => dur / 1e6)
    return {
      name: name.slice(0, -KERNEL.length),
      op,
      loop: loop?.slice(0, -KERNEL.length),
      calls: members.length,
      seconds: durations.reduce((sum, duration) => sum + duration, 0),
      medianSeconds: median(durations),
      inputs: typesOf(inputs),
      outputs: typesOf(outputs),
    }
  })
}

/** What follows a loop begins when it has ended, or later. */
const contains = (loop: Event, event: Event): boolean => event.ts >= loop.ts && event.ts < loop.ts + loop.dur

/** Types that Fovea does not hold are left out. */
function typesOf(values: z.infer<typeof tensors>): ValueType[] {
  return values.flatMap(Object.entries).flatMap(([type, shape]) => {
    const dtype = dtypes[type]
    return dtype ? [{ dtype, shape }] : []
  })
}
