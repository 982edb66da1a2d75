/**
 * Where a data set comes from: folders, cache, mirrors. The mirrors are loopback servers, the data set is
 * tiny.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { LoadOptions, LoadProgress } from '../src/data/data-set.ts'
import { encodeIdx } from '../src/data/idx.ts'
import { type IdxDefinition, loadIdxDataSet } from '../src/data/idx-data-set.ts'
import type { IdxFile } from '../src/data/idx-file.ts'
import { fetchFromMirrors, type PublishedFile } from '../src/data/mirrors.ts'
import { readStored, UnreadableFile } from '../src/data/stored-file.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import { key, randomBits } from '../src/util/random.ts'

// Random pixels do not compress, so that the file is large enough to be cut in the middle.
const pixels = (count: number) =>
  Uint8Array.from(randomBits(key(0, 'pixels'), count * 600), bits => bits & 255)
const plain: Record<string, Uint8Array> = {
  'train-images': encodeIdx([200, 20, 30], pixels(200)),
  'train-labels': encodeIdx(
    [200],
    Uint8Array.from({ length: 200 }, (_, i) => i % 2),
  ),
  'test-images': encodeIdx([4, 20, 30], pixels(4)),
  'test-labels': encodeIdx([4], Uint8Array.of(0, 1, 1, 0)),
}
const stored = Object.fromEntries(
  Object.entries(plain).map(([name, bytes]) => [`${name}.gz`, gzipSync(bytes)]),
)
const names = Object.keys(stored)
const big = stored['train-images.gz']!
const file = (name: string) => ({
  name,
  md5: createHash('md5').update(stored[`${name}.gz`]!).digest('hex'),
  sha256: createHash('sha256').update(plain[name]!).digest('hex'),
})
const tiny: IdxDefinition = {
  name: 'tiny',
  title: 'Tiny',
  imageShape: [20, 30, 1],
  classes: ['a', 'b'],
  train: 200,
  test: 4,
  source: 'this test',
  licence: 'none',
  files: {
    trainImages: file('train-images'),
    trainLabels: file('train-labels'),
    testImages: file('test-images'),
    testLabels: file('test-labels'),
  },
  mirrors: [],
}

let folder: string
let cacheDir: string
let cache: string
let servers: Server[]
let requests: string[]

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-data-'))
  cacheDir = join(folder, 'cache')
  cache = join(cacheDir, 'tiny')
  servers = []
  requests = []
})
afterEach(async () => {
  for (const server of servers) {
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  }
  await rm(folder, { recursive: true, force: true })
})

type Handler = (name: string, request: IncomingMessage, response: ServerResponse) => void

/** A server of the tiny data set's files; `special` may answer a GET itself, and returns true then. */
async function serve(special: (...args: Parameters<Handler>) => boolean = () => false): Promise<string> {
  const server = createServer((request, response) => {
    const name = request.url!.slice(1)
    requests.push(`${request.method} ${name}${request.headers.range ? ` ${request.headers.range}` : ''}`)
    if (request.method === 'HEAD') response.end()
    else if (!special(name, request, response)) sendFile(name, request, response)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  servers.push(server)
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

const sendFile: Handler = (name, request, response) => {
  const bytes = stored[name]
  if (bytes === undefined) return void response.writeHead(404).end()
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  if (start >= bytes.length) return void response.writeHead(416).end()
  if (start > 0)
    response.writeHead(206, {
      'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`,
      'content-length': bytes.length - start,
    })
  else response.writeHead(200, { 'content-length': bytes.length })
  response.end(bytes.subarray(start))
}

/** Sends half of the file and closes the connection. */
const cut: Handler = (name, _request, response) => {
  const bytes = stored[name]!
  response.writeHead(200, { 'content-length': bytes.length })
  response.write(bytes.subarray(0, bytes.length / 2), () => setTimeout(() => response.destroy(), 30))
}

const load = (mirrors: readonly string[], options: LoadOptions = {}) =>
  loadIdxDataSet(tiny, { cacheDir, mirrors, connectTimeout: 500, idleTimeout: 500, ...options })

const rangesOf = (name: string) => requests.filter(request => request.startsWith(`GET ${name}`))

async function expectWholeCache() {
  expect((await readdir(cache)).sort()).toEqual(names.toSorted())
  for (const name of names) expect(stored[name]!.equals(await readFile(join(cache, name)))).toBe(true)
}

async function writeAll(to: string, change: Record<string, Uint8Array> = {}) {
  await mkdir(to, { recursive: true })
  for (const [name, bytes] of Object.entries({ ...stored, ...change })) await writeFile(join(to, name), bytes)
}

describe('a folder that the user names', () => {
  test('holds .gz or decompressed files', async () => {
    await writeAll(folder)
    await rm(join(folder, 'train-images.gz'))
    await writeFile(join(folder, 'train-images'), plain['train-images']!)
    const data = await load([], { folder })
    expect([data.train.images.shape, data.test.labels.shape]).toEqual([[200, 20, 30, 1], [4]])
    expect(data.source).toBe(`the folder ${folder}`)
    const gz = join(folder, 'gz')
    await writeAll(gz)
    expect((await load([], { folder: gz })).hash).toBe(data.hash)
  })

  test('that lacks a file is an error, whatever else there is', async () => {
    await writeAll(cache)
    await writeAll(folder)
    await rm(join(folder, 'test-labels.gz'))
    await expect(load([], { folder })).rejects.toThrow(
      new UsageError(
        `tiny: the folder ${folder} lacks a file: no test-labels.gz; expected train-images, train-labels, test-images, test-labels, each with or without .gz`,
      ),
    )
  })

  test('that is not there, or is a file, is said to be that', async () => {
    const missing = join(folder, 'missing')
    await expect(load([], { folder: missing })).rejects.toThrow(
      new UsageError(`tiny: ${missing}: no such folder`),
    )
    await writeFile(missing, '')
    await expect(load([], { folder: missing })).rejects.toThrow(
      new UsageError(`tiny: ${missing}: expected a folder, received a file`),
    )
  })

  test('with gzip that would fill the memory', async () => {
    const part = gzipSync(new Uint8Array(2 ** 26))
    await writeAll(folder, { 'test-images.gz': Buffer.concat(Array(9).fill(part)) })
    await expect(load([], { folder })).rejects.toThrow(
      new FoveaError(
        `${join(folder, 'test-images.gz')}: expected at most 536870912 bytes when decompressed, received more`,
      ),
    )
  })

  test('may differ from the published files, and the source says so', async () => {
    const labels = encodeIdx([200], new Uint8Array(200))
    await writeAll(folder, { 'train-labels.gz': gzipSync(labels) })
    const data = await load([], { folder })
    expect(data.source).toBe(`the folder ${folder} (note: not the published checksum: train-labels.gz)`)
    expect(data.notes).toEqual(['not the published checksum: train-labels.gz'])
  })

  test.each([
    [
      'images of another size',
      gzipSync(encodeIdx([4, 10, 60], new Uint8Array(2400))),
      'expected images [20, 30, 1] (height, width, channels), received [10, 60, 1]',
    ],
    [
      'a damaged gzip file',
      stored['test-images.gz']!.subarray(0, 99),
      'not a whole gzip file (unexpected end of file)',
    ],
    [
      'labels in the place of images',
      stored['test-labels.gz']!,
      'expected 3 dimensions (images), received 1: these are labels',
    ],
  ])('%s', async (_name, bytes, message) => {
    await writeAll(folder, { 'test-images.gz': bytes })
    await expect(load([], { folder })).rejects.toThrow(
      new FoveaError(`${join(folder, 'test-images.gz')}: ${message}`),
    )
  })

  test('fewer images are said', async () => {
    await writeAll(folder, {
      'test-images.gz': gzipSync(encodeIdx([1, 20, 30], new Uint8Array(600))),
      'test-labels.gz': gzipSync(encodeIdx([1], new Uint8Array(1))),
    })
    expect((await load([], { folder })).source).toContain('1 test images where the published set has 4')
  })
})

describe('mirrors', () => {
  test('fill the cache, which then serves without a request', async () => {
    const events: LoadProgress[] = []
    const mirror = await serve()
    const data = await load([mirror], { progress: event => events.push(event) })
    expect(data.source).toBe(`${mirror}, kept in ${cache}`)
    await expectWholeCache()
    const last = events.findLast(event => event.file === 'train-images.gz')
    expect(last).toEqual({
      phase: 'download',
      file: 'train-images.gz',
      received: big.length,
      total: big.length,
      url: `${mirror}train-images.gz`,
    })
    requests = []
    const again = await load([mirror])
    expect(requests).toEqual([])
    expect([again.source, again.hash]).toEqual([`the cache ${cache}`, data.hash])
  })

  test('only what the cache lacks or has damaged is fetched', async () => {
    await writeAll(cache, { 'test-labels.gz': gzipSync(encodeIdx([4], new Uint8Array(4))) })
    await rm(join(cache, 'train-labels.gz'))
    await load([await serve()])
    expect(requests.filter(request => request.startsWith('GET'))).toEqual([
      'GET train-labels.gz',
      'GET test-labels.gz',
    ])
    await expectWholeCache()
  })

  test('a connection that is cut is taken up where it broke', async () => {
    let first = true
    const mirror = await serve((name, request, response) => {
      if (name !== 'train-images.gz' || !first) return false
      first = false
      cut(name, request, response)
      return true
    })
    await load([mirror])
    expect(rangesOf('train-images.gz')).toEqual([
      'GET train-images.gz',
      expect.stringMatching(/^GET train-images\.gz bytes=[1-9]\d*-$/),
    ])
    await expectWholeCache()
  })

  test('a later run, and another mirror, continue what an earlier one left', async () => {
    const cutting = await serve((name, request, response) => {
      if (name !== 'train-images.gz') return false
      if (request.headers.range) response.writeHead(503).end()
      else cut(name, request, response)
      return true
    })
    await expect(load([cutting])).rejects.toThrow(`${cutting} (HTTP 503 Service Unavailable)`)
    expect(await readdir(cache)).toEqual(['train-images.gz.partial'])
    requests = []
    await load([await serve()])
    expect(rangesOf('train-images.gz')[0]).toMatch(/bytes=[1-9]\d*-$/)
    await expectWholeCache()
  })

  test("a dead process's partial file is continued, a living one's is left alone", async () => {
    await mkdir(cache, { recursive: true })
    const dead = spawnSync(process.execPath, ['--version']).pid
    const [half, living, away] = [
      `train-images.gz.partial-${hostname()}-${dead}-00ff`,
      `train-labels.gz.partial-${hostname()}-${process.pid}-00ff`,
      'test-images.gz.partial-another-host-1-00ff',
    ] as const
    await writeFile(join(cache, half), big.subarray(0, 5000))
    await writeFile(join(cache, living), 'x')
    await writeFile(join(cache, away), 'x')
    const mirror = await serve()
    await load([mirror])
    expect(rangesOf('train-images.gz')).toEqual(['GET train-images.gz bytes=5000-'])
    expect(rangesOf('train-labels.gz')).toEqual(['GET train-labels.gz'])
    expect((await readdir(cache)).sort()).toEqual([...names, living, away].sort())

    const old = new Date(Date.now() - 2 * 24 * 3600 * 1000)
    await utimes(join(cache, away), old, old)
    await rm(join(cache, 'test-images.gz'))
    await load([mirror])
    expect((await readdir(cache)).sort()).toEqual([...names, living].sort())
  })

  test('a server that ignores the range starts the file anew', async () => {
    await mkdir(cache, { recursive: true })
    await writeFile(join(cache, 'train-images.gz.partial'), big.subarray(0, 5000))
    const mirror = await serve((name, _request, response) => {
      response.writeHead(200).end(stored[name])
      return true
    })
    await load([mirror])
    expect(rangesOf('train-images.gz')).toEqual(['GET train-images.gz bytes=5000-'])
    await expectWholeCache()
  })

  test.each([
    ['the beginning of something else', Buffer.alloc(5000, 7)],
    ['longer than the file', Buffer.alloc(big.length + 5, 7)],
  ])('a partial file that is %s is thrown away', async (_name, bytes) => {
    await mkdir(cache, { recursive: true })
    await writeFile(join(cache, 'train-images.gz.partial'), bytes)
    await load([await serve()])
    expect(rangesOf('train-images.gz')).toEqual([
      `GET train-images.gz bytes=${bytes.length}-`,
      'GET train-images.gz',
    ])
    await expectWholeCache()
  })

  test('a wrong checksum discards the file and goes to the next mirror', async () => {
    const wrong = await serve((_name, _request, response) => {
      response.end(gzipSync('<html>you are offline</html>'))
      return true
    })
    const right = await serve()
    const data = await load([wrong, right])
    expect(data.source).toBe(`${right}, kept in ${cache}`)
    await expectWholeCache()
    await rm(cacheDir, { recursive: true })
    await expect(load([wrong])).rejects.toThrow(`${wrong} (train-images.gz: wrong checksum)`)
    expect(await readdir(cache)).toEqual([])
  })

  test('where a SHA-256 is known, a right MD5 is not enough; where none is, it decides', async () => {
    const mirror = await serve()
    const { md5 } = file('train-images')
    const loadWith = (trainImages: IdxFile) =>
      loadIdxDataSet({ ...tiny, files: { ...tiny.files, trainImages } }, { cacheDir, mirrors: [mirror] })
    await expect(loadWith({ name: 'train-images', md5, sha256: '0'.repeat(64) })).rejects.toThrow(
      `${mirror} (train-images.gz: wrong checksum)`,
    )
    await loadWith({ name: 'train-images', md5 })
    await expectWholeCache()
  })

  test('a copy that was compressed anew is the published data all the same', async () => {
    const mirror = await serve((name, _request, response) => {
      response.end(gzipSync(plain[name.replace('.gz', '')]!, { level: 1 }))
      return true
    })
    await load([mirror])
    expect((await load([])).source).toBe(`the cache ${cache}`)
  })

  test('a server that falls silent in the middle is given up, and so is one that never answers', async () => {
    const silent = await serve((name, _request, response) => {
      response.writeHead(200, { 'content-length': stored[name]!.length })
      response.write(stored[name]!.subarray(0, 5000))
      return true
    })
    const hanging = createServer(() => {})
    await new Promise<void>(resolve => hanging.listen(0, '127.0.0.1', resolve))
    servers.push(hanging)
    const hung = `http://127.0.0.1:${(hanging.address() as AddressInfo).port}/`
    const started = performance.now()
    await expect(load([hung, hung.replace('127.0.0.1', 'localhost'), silent])).rejects.toThrow(
      `${hung} (no answer within 0.5 s)`,
    )
    await expect(load([silent])).rejects.toThrow(`${silent} (no data for 0.5 s)`)
    expect(performance.now() - started).toBeLessThan(5000)
  })

  test('when nothing works, one line says what was tried and what to do', async () => {
    const gone = await serve((_name, _request, response) => {
      response.writeHead(404).end()
      return true
    })
    const closed = await serve()
    await new Promise(resolve => servers.pop()!.close(resolve))
    const failure = await load([gone, closed]).catch((error: Error) => error)
    expect(failure).toBeInstanceOf(FoveaError)
    expect((failure as FoveaError).exitCode).toBe(1)
    expect((failure as Error).message).toBe(
      `tiny was found nowhere. Tried: the cache ${cache} (no train-images.gz); ${gone} (HTTP 404 Not Found); ${closed} (ECONNREFUSED). ` +
        'Connect to the network, or name a folder that holds train-images, train-labels, test-images, test-labels of tiny',
    )
  })

  test('a cache that cannot be written is named', async () => {
    await writeFile(join(folder, 'file'), '')
    const mirror = await serve()
    await expect(load([mirror], { cacheDir: join(folder, 'file') })).rejects.toThrow(
      `${mirror} (ENOTDIR at ${join(folder, 'file', 'tiny')})`,
    )
  })

  test('a file that was downloaded and checked, but cannot be put in place, is used all the same', async () => {
    const mirror = await serve(name => {
      if (name === 'test-labels.gz') mkdirSync(join(cache, name, 'folder'), { recursive: true })
      return false
    })
    const { source, test } = await load([mirror])
    expect(source).toMatch(new RegExp(`^${mirror}, not cached: [A-Z]+ at ${cache}/test-labels.gz`))
    expect(test.labels.data).toEqual(Int32Array.of(0, 1, 1, 0))
  })

  // What the system refuses to read is played by a folder: for one, the superuser is not refused.
  test('a file of the cache that cannot be read is left alone, and said to be that', async () => {
    const unreadable = join(cache, 'test-labels.gz')
    await mkdir(unreadable, { recursive: true })
    await expect(load([await serve()])).rejects.toThrow(new UnreadableFile(unreadable, 'EISDIR'))
    expect(requests).toEqual([])
    expect(await readdir(cache)).toEqual(['test-labels.gz'])
  })

  test('a download that cannot be read is kept whole, and needs no second one', async () => {
    let readable = false
    const published: PublishedFile<Uint8Array> = {
      name: 'train-images.gz',
      async read(path) {
        const bytes = await readStored(readable ? path : folder)
        return bytes?.length === big.length ? bytes : undefined
      },
    }
    const fetchIt = async (mirrors: string[]) =>
      await fetchFromMirrors([published], mirrors, cache, { idleTimeout: 500 })
    const mirrors = [await serve(), await serve()]
    const partial = join(cache, 'train-images.gz.partial')
    await expect(fetchIt(mirrors)).rejects.toThrow(new UnreadableFile(partial, 'EISDIR'))
    expect(big.equals(await readFile(partial))).toBe(true)
    expect(rangesOf('train-images.gz')).toEqual(['GET train-images.gz'])
    readable = true
    expect((await fetchIt(mirrors)).notCached).toBeUndefined()
    expect(await readdir(cache)).toEqual(['train-images.gz'])
    expect(rangesOf('train-images.gz')).toEqual(['GET train-images.gz'])
  })

  test('several loads at once do not disturb each other', async () => {
    const mirror = await serve((name, request, response) => {
      setTimeout(() => sendFile(name, request, response), Math.random() * 50)
      return true
    })
    const all = await Promise.all(Array.from({ length: 6 }, () => load([mirror])))
    expect(new Set(all.map(({ hash }) => hash)).size).toBe(1)
    await expectWholeCache()
  })
})
