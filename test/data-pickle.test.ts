/** What a pickle may not ask for; whole ones are read in data-cifar.test.ts. */
import { describe, expect, test } from 'vitest'
import { readPickle } from '../src/data/pickle.ts'
import { FoveaError } from '../src/util/errors.ts'
import { str } from './data-cifar-fixture.ts'

describe('pickles', () => {
  const pickle = (body: string | Uint8Array) =>
    Buffer.concat([Uint8Array.of(0x80, 2), typeof body === 'string' ? Buffer.from(body, 'latin1') : body])
  test.each([
    [
      'a global',
      pickle('cos\nsystem\n.'),
      'pickle opcode 63 (c) at byte 2: expected a uint8 array of NumPy, received the global "os system"',
    ],
    [
      'an instance',
      pickle('(ios\nsystem\n.'),
      'pickle opcode 69 (i) at byte 3: not an opcode that these files need',
    ],
    ['an extension', pickle('\x82\x01.'), 'pickle opcode 82 at byte 2: not an opcode that these files need'],
    [
      'a call of a type',
      pickle('cnumpy\nndarray\n)R.'),
      'pickle opcode 52 (R) at byte 18: expected a uint8 array, received numpy ndarray of another',
    ],
    [
      'floats',
      pickle('cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R.'),
      'pickle opcode 52 (R) at byte 24: expected a uint8 array, received numpy dtype of f4',
    ],
    [
      'protocol 4',
      Buffer.from('\x80\x04.', 'latin1'),
      'pickle opcode 80 at byte 0: expected protocol 2, received 4',
    ],
    ['no pickle', Buffer.from('<html>'), 'pickle opcode 3c (<) at byte 0: expected a pickle of protocol 2'],
    ['a cut string', pickle('U\x09abc'), 'truncated pickle: expected 9 bytes at byte 4, received 3'],
    ['no end', pickle(str('abc')), 'truncated pickle: expected 1 bytes at byte 7, received 0'],
    [
      'an unknown memory',
      pickle('h\x05.'),
      'pickle opcode 68 (h) at byte 2: expected a remembered value 5, received none',
    ],
    ['an empty stack', pickle('.'), 'pickle opcode 2e (.) at byte 2: expected a value on the stack'],
    [
      'more after the end',
      pickle('N.N'),
      'pickle opcode 2e (.) at byte 3: expected the end of the file and one value',
    ],
  ])('%s is refused', (_name, bytes, message) => {
    expect(() => readPickle({ file: 'f', bytes })).toThrow(new FoveaError(`f: ${message}`))
  })
})
