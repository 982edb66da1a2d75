/** Brain-inspired mechanisms, as layers. docs/mechanisms.md lists them. */
export * from './connectivity.ts'
export * from './divisive-normalization.ts'
export * from './k-winners-take-all.ts'
export * from './lateral-inhibition.ts'
export * from './local-response-normalization.ts'
export * from './mexican-hat.ts'
export * from './push-pull.ts'
export * from './sparse.ts'
