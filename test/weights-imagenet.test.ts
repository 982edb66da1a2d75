/** Published weights: fetched, kept, checked. The publisher is a loopback server. */

import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { fetchPublished } from '../src/weights/imagenet.ts'
import { fetchImageNetWeights } from '../src/weights/index.ts'
import { rejectionOf } from './error-of.ts'

const NAME = 'xception_weights_tf_dim_ordering_tf_kernels_notop.h5'
const SUM = 'b0042744bf5b25fce3cb969f33bebb97'
const content = Buffer.from('weights '.repeat(1000))

let cacheDir: string
let server: Server
let mirror: string
let requests: string[]

beforeEach(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), 'fovea-imagenet-'))
  requests = []
  server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    if (!request.url!.endsWith('.h5')) response.writeHead(404).end()
    else response.end(request.method === 'HEAD' ? undefined : content)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
})
afterEach(async () => {
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
  await rm(cacheDir, { recursive: true, force: true })
})

test('a file of another sum is not kept, and the message says what to do', async () => {
  const { message } = await rejectionOf(fetchImageNetWeights('xception', { cacheDir, mirrors: [mirror] }))
  expect(message.replace(mirror, 'MIRROR')).toBe(
    `xception: its weights trained on ImageNet could not be fetched: MIRROR (${NAME}: wrong checksum). Fetch https://storage.googleapis.com/tensorflow/keras-applications/xception/${NAME} (MD5 ${SUM}) by hand, and give it with --weights FILE`,
  )
  expect(await readdir(join(cacheDir, 'weights'))).toEqual([])
  expect(requests).toEqual([`HEAD /${NAME}`, `GET /${NAME}`])
})

test('where nothing answers', async () => {
  await new Promise(resolve => server.close(resolve))
  const { message } = await rejectionOf(
    fetchImageNetWeights('vgg16', { cacheDir, mirrors: [mirror], top: true }),
  )
  expect(message).toContain('vgg16: its weights trained on ImageNet could not be fetched')
  expect(message).toContain('(ECONNREFUSED)')
  expect(message).toContain(
    'vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5 (MD5 64373286793e3c8b2b4e3219cbf3544b)',
  )
})

test('an architecture without published weights', async () => {
  expect((await rejectionOf(fetchImageNetWeights('lenet5', { cacheDir }))).message).toBe(
    'lenet5: no weights trained on ImageNet are published for it, only for vgg16, resnet50, xception',
  )
})

test('what has the published sum is fetched once and kept; a damaged copy is fetched anew', async () => {
  const md5 = createHash('md5').update(content).digest('hex')
  const tiny = { base: mirror, stem: 'tiny', md5: { top: md5, notop: md5 } }
  const progress: number[] = []
  const options = {
    cacheDir,
    progress: ({ received }: { received: number }) => progress.push(received),
  }
  const path = join(cacheDir, 'weights', 'tiny_notop.h5')
  const fetched = () => requests.filter(request => request.startsWith('GET'))
  expect(await fetchPublished('tiny', tiny, options)).toBe(path)
  expect(content.equals(await readFile(path))).toBe(true)
  expect(progress.at(-1)).toBe(content.length)
  expect(await fetchPublished('tiny', tiny, options)).toBe(path)
  expect(fetched()).toEqual(['GET /tiny_notop.h5'])
  await writeFile(path, 'damaged')
  expect(await fetchPublished('tiny', tiny, options)).toBe(path)
  expect(content.equals(await readFile(path))).toBe(true)
  expect(await fetchPublished('tiny', tiny, { ...options, top: true })).toBe(
    join(cacheDir, 'weights', 'tiny.h5'),
  )
})
