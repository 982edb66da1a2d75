/** Everything that can be named: architectures, and the papers whose whole protocol can be run. */
import { unknownName } from '../util/errors.ts'
import type { Architecture } from './architecture.ts'
import { bassas2022 } from './bassas-2022.ts'
import { densenetBc } from './densenet.ts'
import { korssjoen2020 } from './korssjoen-2020.ts'
import { lenet5 } from './lenet.ts'
import type { Paper } from './paper.ts'
import { resnets } from './resnet.ts'
import { singhBrar2024 } from './singh-brar-2024.ts'
import { vgg16 } from './vgg16.ts'
import { visionnet } from './visionnet.ts'
import { wang } from './wang.ts'
import { xception } from './xception.ts'

export const papers: readonly Paper[] = [singhBrar2024]

/** The reports' networks, then those of the literature. */
export const architectures: readonly Architecture[] = [
  ...singhBrar2024.architectures,
  ...wang,
  ...korssjoen2020,
  ...visionnet,
  ...bassas2022,
  lenet5,
  vgg16,
  ...resnets,
  densenetBc,
  xception,
]

/** The architecture of that name; an unknown one gives an error with the nearest. */
export function architectureNamed(name: string): Architecture {
  const found = architectures.find(architecture => architecture.name === name)
  if (found) return found
  throw unknownName(
    'model',
    name,
    architectures.map(architecture => architecture.name),
  )
}

/** The paper of that id; an unknown one gives an error with the nearest. */
export function paperNamed(id: string): Paper {
  const found = papers.find(paper => paper.id === id)
  if (found) return found
  throw unknownName(
    'paper',
    id,
    papers.map(paper => paper.id),
  )
}
