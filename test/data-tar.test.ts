import { describe, expect, test } from 'vitest'
import { readTar } from '../src/data/tar.ts'
import { tar } from './data-cifar-fixture.ts'

describe('tar', () => {
  const bytes = Uint8Array.of(1, 2, 3)
  const whole = tar([['a/b', bytes]])
  test('gives plain files by their paths', () => {
    expect(
      readTar({
        file: 'f',
        bytes: tar([
          ['./a/', new Uint8Array(0)],
          ['./a/b', bytes],
        ]),
      }),
    ).toEqual(new Map([['a/b', Buffer.from(bytes)]]))
  })

  const damaged = Buffer.from(whole)
  damaged[0] = 'c'.charCodeAt(0)
  test.each([
    [
      'a damaged header',
      damaged,
      /^f: tar header at byte 0: expected the checksum \d+, received bytes that sum to \d+$/,
    ],
    [
      'a cut file',
      tar([['a', new Uint8Array(900)]]).subarray(0, 1000),
      'f: truncated: expected 900 bytes of a at byte 512, received 488',
    ],
    [
      'no end mark',
      whole.subarray(0, 1024),
      'f: truncated: expected 512 bytes of tar header or end mark at byte 1024, received 0',
    ],
    [
      'a path above',
      tar([['a/../../b', bytes]]),
      'f: tar header at byte 0: expected a path within the archive\'s folder, received "a/../../b"',
    ],
    [
      'a path from the root',
      tar([['/etc/b', bytes]]),
      'f: tar header at byte 0: expected a path within the archive\'s folder, received "/etc/b"',
    ],
    [
      'a link',
      tar([['a', new Uint8Array(0), '2']]),
      'f: tar header at byte 0: expected a plain file or a folder, received type "2" (a)',
    ],
    [
      'a file twice',
      tar([
        ['a', bytes],
        ['./a', bytes],
      ]),
      'f: tar header at byte 1024: expected each path once, received a again',
    ],
    [
      'another path in an extended header',
      tar([['x', Buffer.from('10 path=b\n'), 'x']]),
      'f: tar header at byte 0: expected paths and sizes in the headers, received an extended header with them',
    ],
  ])('%s is refused', (_name, archive, message) => {
    expect(() => readTar({ file: 'f', bytes: archive })).toThrow(message)
  })
})
