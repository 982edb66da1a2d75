/**
 * Debian's package as a source: the real apt-get and dpkg-deb, on a repository that this test makes and
 * serves.
 */
import { execFile, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { LoadProgress } from '../src/data/data-set.ts'
import { encodeIdx } from '../src/data/idx.ts'
import { type IdxDefinition, loadIdxDataSet } from '../src/data/idx-data-set.ts'

const plain = {
  'train-images': encodeIdx([2, 2, 2], Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)),
  'train-labels': encodeIdx([2], Uint8Array.of(0, 1)),
  'test-images': encodeIdx([1, 2, 2], Uint8Array.of(9, 8, 7, 6)),
  'test-labels': encodeIdx([1], Uint8Array.of(1)),
}
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const file = (name: keyof typeof plain) => ({ name, sha256: sha256(plain[name]) })
const tiny: IdxDefinition = {
  name: 'tiny',
  title: 'Tiny',
  imageShape: [2, 2, 1],
  classes: ['a', 'b'],
  train: 2,
  test: 1,
  source: 'this test',
  licence: 'none',
  files: {
    trainImages: file('train-images'),
    trainLabels: file('train-labels'),
    testImages: file('test-images'),
    testLabels: file('test-labels'),
  },
  mirrors: [],
  debian: { package: 'dataset-tiny', folder: '/usr/share/datasets/tiny' },
}

const hasApt = ['apt-get', 'dpkg-deb'].every(command => spawnSync(command, ['--version']).status === 0)
const aptTest = (name: string, body: () => Promise<void>) =>
  test(name, async context => {
    context.skip(!hasApt, 'apt-get or dpkg-deb is not installed here')
    await body()
  })

let folder: string
let repository: string
let server: Server
let lists: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-apt-test-'))
  repository = join(folder, 'repository')
  lists = join(folder, 'system-lists')
  await mkdir(repository)
  await mkdir(join(lists, 'partial'), { recursive: true })
  server = createServer(async (request, response) => {
    const bytes = await readFile(join(repository, request.url!)).catch(() => undefined)
    response.writeHead(bytes === undefined ? 404 : 200).end(bytes)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await writeFile(join(folder, 'sources.list'), `deb [trusted=yes] http://127.0.0.1:${port}/ ./\n`)
  // What apt itself offers for another configuration: the system's sources and lists are not touched.
  const config = [
    `Dir::Etc::sourcelist "${join(folder, 'sources.list')}";`,
    'Dir::Etc::sourceparts "/dev/null";',
    `Dir::State::lists "${lists}";`,
    'Acquire::http::Proxy::127.0.0.1 "DIRECT";',
  ]
  await writeFile(join(folder, 'apt.conf'), config.join('\n'))
  vi.stubEnv('APT_CONFIG', join(folder, 'apt.conf'))
})
afterEach(async () => {
  vi.unstubAllEnvs()
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
  await rm(folder, { recursive: true, force: true })
})

/** Puts the package into the repository, in place of an earlier version. */
async function publish(version: string, content: Record<string, Uint8Array> = plain) {
  const root = join(folder, `package-${version}`)
  await mkdir(join(root, 'DEBIAN'), { recursive: true })
  await mkdir(join(root, 'usr/share/datasets/tiny'), { recursive: true })
  const control = `Package: dataset-tiny\nVersion: ${version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: tiny\n`
  await writeFile(join(root, 'DEBIAN/control'), control)
  for (const [name, bytes] of Object.entries(content))
    await writeFile(join(root, 'usr/share/datasets/tiny', `${name}.gz`), gzipSync(bytes))
  for (const old of await readdir(repository)) await rm(join(repository, old))
  const deb = `dataset-tiny_${version}_all.deb`
  const built = spawnSync('dpkg-deb', ['--root-owner-group', '-b', root, join(repository, deb)])
  expect(built.stderr.toString()).toBe('')
  const bytes = await readFile(join(repository, deb))
  const index = `${control}Filename: ./${deb}\nSize: ${bytes.length}\nSHA256: ${sha256(bytes)}\n\n`
  await writeFile(join(repository, 'Packages'), index)
}

/**
 * What `apt-get update` of the system would do. Asynchronous, because this process also serves the
 * repository.
 */
async function updateSystem() {
  await promisify(execFile)('apt-get', [
    ...['-o', `Dir::Cache=${folder}`, '-o', 'APT::Sandbox::User=root', 'update'],
  ])
}

const load = (progress?: (event: LoadProgress) => void) =>
  loadIdxDataSet(tiny, {
    cacheDir: join(folder, 'cache'),
    debianDir: join(folder, 'nowhere'),
    ...(progress && { progress }),
  })

async function expectLoaded() {
  const events: LoadProgress[] = []
  const data = await load(event => events.push(event))
  const cache = join(folder, 'cache/tiny')
  expect(data.source).toBe(`Debian's package dataset-tiny by apt-get, kept in ${cache}`)
  expect(data.train.images.data).toEqual(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
  expect((await readdir(cache)).sort()).toEqual(
    Object.keys(plain)
      .map(name => `${name}.gz`)
      .sort(),
  )
  expect((await load()).source).toBe(`the cache ${cache}`)
  const last = events.at(-1)!
  expect(last).toMatchObject({ phase: 'apt', file: expect.stringMatching(/^dataset-tiny_.*\.deb$/) })
  expect(last.received).toBe(last.total)
}

aptTest("the system's package lists serve where they know the package", async () => {
  await publish('1.0')
  await updateSystem()
  const before = await readdir(lists)
  await expectLoaded()
  expect(await readdir(lists)).toEqual(before)
})

aptTest('without package lists, as in a container image, private ones are fetched', async () => {
  await publish('1.0')
  const before = await readdir(lists)
  await expectLoaded()
  expect(await readdir(lists)).toEqual(before)
})

aptTest('lists that name a version which is gone are replaced by private ones', async () => {
  await publish('1.0')
  await updateSystem()
  await publish('1.1')
  await expectLoaded()
})

aptTest('a package with other content is refused, and nothing enters the cache', async () => {
  await publish('1.0', { ...plain, 'test-labels': encodeIdx([1], Uint8Array.of(0)) })
  await expect(load()).rejects.toThrow(
    'apt-get download dataset-tiny (the package: test-labels: wrong checksum)',
  )
  await expect(readdir(join(folder, 'cache/tiny'))).rejects.toThrow('ENOENT')
})

aptTest('a cache that cannot be written does not keep the data back', async () => {
  await publish('1.0')
  await writeFile(join(folder, 'cache'), 'a regular file')
  const data = await load()
  expect(data.source).toBe(
    `Debian's package dataset-tiny by apt-get, not cached: ENOTDIR at ${join(folder, 'cache/tiny')}`,
  )
  expect(data.test.images.data).toEqual(Uint8Array.of(9, 8, 7, 6))
})

aptTest('a process that exits in the middle leaves no temporary folder', async () => {
  await publish('1.0')
  const temporary = join(folder, 'tmp')
  await mkdir(temporary)
  const apt = JSON.stringify(new URL('../src/data/apt.ts', import.meta.url).href)
  const script = `import { readdirSync } from 'node:fs'
    import { withAptPackage } from ${apt}
    await withAptPackage('dataset-tiny', async () => {
      console.log(readdirSync(process.env.TMPDIR).filter(name => name.startsWith('fovea-apt-')).length)
      process.exit(0)
    })`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
    env: { ...process.env, TMPDIR: temporary },
    timeout: 30_000,
  })
  expect(stdout).toBe('1\n')
  expect(await readdir(temporary)).toEqual([])
})

aptTest('a package that no source has is said, with what to do', async () => {
  await writeFile(join(repository, 'Packages'), '')
  await expect(load()).rejects.toThrow(
    /apt-get download dataset-tiny \(Unable to locate package dataset-tiny\)\. Connect to the network, install Debian's package dataset-tiny, or name a folder/,
  )
})

test('without apt-get the reason is that', async () => {
  vi.stubEnv('PATH', folder)
  await expect(load()).rejects.toThrow('apt-get download dataset-tiny (apt-get not found)')
})

test('nothing is left in the folder for temporary files', async () => {
  vi.stubEnv('TMPDIR', join(folder, 'tmp'))
  await mkdir(join(folder, 'tmp'))
  vi.stubEnv('PATH', folder)
  await expect(load()).rejects.toThrow('apt-get not found')
  expect(await readdir(join(folder, 'tmp'))).toEqual([])
})
