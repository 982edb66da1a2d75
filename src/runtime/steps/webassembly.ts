/** What is used of WebAssembly's JavaScript interface, which TypeScript declares for browsers only. */

export interface WasmMemory {
  readonly buffer: SharedArrayBuffer
  /** By pages of 64 KiB. */
  grow(pages: number): number
}

/** Compiled code; may be sent to other threads. */
export type WasmModule = object

interface WebAssemblyInterface {
  readonly Memory: new (limits: { initial: number; maximum: number; shared: true }) => WasmMemory
  readonly Module: new (bytes: Uint8Array<ArrayBuffer>) => WasmModule
  readonly Instance: new (
    module: WasmModule,
    imports: Readonly<Record<string, Readonly<Record<string, WasmMemory>>>>,
  ) => { readonly exports: Readonly<Record<string, unknown>> }
}

export const wasm = (globalThis as unknown as { readonly WebAssembly: WebAssemblyInterface }).WebAssembly
