import { readdirSync, readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../src', import.meta.url))

/** The order of the folders: each imports only itself and those before it, so that there are no cycles. */
const folders = [
  'util',
  'stats',
  'onnx',
  'graph',
  'autodiff',
  'nn',
  'zoo',
  'data',
  'weights',
  'compile',
  'runtime',
  'train',
  'analysis',
  'audit',
  'store',
  'study',
  'report',
  'server',
  'cli',
]

/** Folders that run in a browser as they are: nothing of Node, and one package. */
const browserSafe = ['util', 'onnx', 'graph', 'autodiff', 'nn', 'zoo', 'compile']
const browserSafePackages = ['@noble/hashes']

/** Files of data/ that run in a browser; the others read from disks and networks in Node's ways. */
const browserSafeData = ['data-set.ts', 'idx.ts', 'split.ts'].map(name => `data/${name}`)

interface Import {
  readonly from: string
  /** A path below src/, or the name of a package or of a module of Node. */
  readonly to: string
}

const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .filter(path => path.endsWith('.ts'))
  .map(path => path.split(sep).join('/'))

/** Static imports, exports from, and dynamic imports of a literal, type-only ones included. */
function importsOf(file: string): Import[] {
  const text = readFileSync(join(root, file), 'utf8')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/^\s*\/\/.*$/gm, '')
  const specifiers = [
    ...text.matchAll(/^(?:import|export)\b[^'"`;]*?\bfrom\s+['"]([^'"]+)['"]/gm),
    ...text.matchAll(/^import\s+['"]([^'"]+)['"]/gm),
    ...text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g),
  ].map(match => match[1]!)
  return specifiers.map(specifier => ({
    from: file,
    to: specifier.startsWith('.')
      ? relative(root, join(root, dirname(file), specifier))
          .split(sep)
          .join('/')
      : specifier,
  }))
}

const imports = files.flatMap(importsOf)
const internal = imports.filter(({ to }) => files.includes(to))
const external = imports.filter(({ to }) => !files.includes(to))
const folderOf = (path: string) => (path.includes('/') ? path.split('/')[0]! : '')
const show = ({ from, to }: Import) => `${from} -> ${to}`
const packageOf = (specifier: string) =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')

test('the imports are found', () => {
  expect(files).toContain('graph/node.ts')
  expect(internal.map(show)).toContain('graph/node.ts -> util/host-tensor.ts')
  expect(internal.map(show)).toContain('onnx/format.ts -> onnx/model.ts')
  expect(external.map(show)).toContain('util/hash.ts -> @noble/hashes/sha2.js')
})

test('every folder has its place in the order', () => {
  expect([...new Set(files.map(folderOf))].filter(name => name !== '' && !folders.includes(name))).toEqual([])
  expect(files.filter(path => folderOf(path) === '')).toEqual(files.includes('index.ts') ? ['index.ts'] : [])
})

test('a folder imports only itself and folders before it', () => {
  const against = internal.filter(({ from, to }) => {
    if (from === 'index.ts') return false
    return to === 'index.ts' || folders.indexOf(folderOf(to)) > folders.indexOf(folderOf(from))
  })
  expect(against.map(show)).toEqual([])
})

test('every relative import names a file of src', () => {
  expect(external.filter(({ to }) => to.startsWith('.') || to.endsWith('.ts')).map(show)).toEqual([])
})

test('what a browser runs imports nothing of Node and no package but that of hashes', () => {
  const safe = (path: string) => browserSafe.includes(folderOf(path)) || browserSafeData.includes(path)
  expect(browserSafeData.filter(path => !files.includes(path))).toEqual([])
  const foreign = external.filter(
    ({ from, to }) => safe(from) && !browserSafePackages.includes(packageOf(to)),
  )
  expect(foreign.map(show)).toEqual([])
  // Nor by way of a file that does.
  expect(internal.filter(({ from, to }) => safe(from) && !safe(to)).map(show)).toEqual([])
})

test("modules of Node are imported as node:, packages are the package's dependencies", () => {
  const { dependencies } = JSON.parse(readFileSync(join(root, '../package.json'), 'utf8'))
  const packages = external.filter(({ to }) => !to.endsWith('.ts'))
  const unknown = packages.filter(({ to }) =>
    to.startsWith('node:')
      ? !builtinModules.includes(packageOf(to.slice('node:'.length))) && to !== 'node:sqlite'
      : !Object.hasOwn(dependencies, packageOf(to)),
  )
  expect(unknown.map(show)).toEqual([])
})

describe('files', () => {
  test('have names in kebab-case', () => {
    expect(
      files.filter(path => !/^([a-z0-9]+(-[a-z0-9]+)*\/)*[a-z0-9]+(-[a-z0-9]+)*\.ts$/.test(path)),
    ).toEqual([])
  })

  test('have at most 400 lines', () => {
    const lines = (path: string) => readFileSync(join(root, path), 'utf8').trimEnd().split('\n').length
    expect(files.map(path => [path, lines(path)] as const).filter(([, count]) => count > 400)).toEqual([])
  })
})
