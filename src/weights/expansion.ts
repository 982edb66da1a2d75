/**
 * How large the content of a file may become: weights hardly compress, and what becomes far larger was made
 * to fill a disk.
 */

const MIB = 2 ** 20
const LEAST = 64 * MIB
const TIMES = 20

/**
 * Bytes that the content of a file of `size` bytes may take: 64 MiB, or 20 times its size where that is more.
 */
export const mostBytes = (size: number): number => Math.max(LEAST, TIMES * size)

/** For messages. */
export const inMebibytes = (bytes: number): string => `${Math.ceil(bytes / MIB)} MiB`
