// wit/deps/wasi-*.wit, as componentize-qjs hands them over.

declare module "wasi:cli/environment@0.2.12" {
  const functions: { getEnvironment(): Array<[string, string]> };
  export default functions;
}

declare module "wasi:io/streams@0.2.12" {
  export interface OutputStream {
    blockingWriteAndFlush(contents: Uint8Array): void;
  }
}

declare module "wasi:cli/stdout@0.2.12" {
  import type { OutputStream } from "wasi:io/streams@0.2.12";
  const functions: { getStdout(): OutputStream };
  export default functions;
}

declare module "wasi:random/random@0.2.12" {
  const functions: { getRandomBytes(len: number): Uint8Array };
  export default functions;
}

declare module "wasi:cli/stderr@0.2.12" {
  import type { OutputStream } from "wasi:io/streams@0.2.12";
  const functions: { getStderr(): OutputStream };
  export default functions;
}
