/** Everything that can be named: architectures and papers. */
import { unknownName } from '../util/errors.ts'
import type { Architecture, Paper } from './paper.ts'
import { singhBrar2024 } from './singh-brar-2024.ts'

export const papers: readonly Paper[] = [singhBrar2024]

export const architectures: readonly Architecture[] = papers.flatMap(paper => paper.architectures)

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
