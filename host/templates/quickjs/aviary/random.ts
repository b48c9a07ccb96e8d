// Chance. QuickJS's own begins anew with every message, where it was when the plugin was built: every user would draw the same lot.

import system from "wasi:random/random@0.2.12";

/** How many bytes `getRandomValues` gives at once, by its standard. */
const BYTES_MAX = 65_536;

/** A number from 0 up to 1, with the 53 bits that a number has. */
export function random(): number {
  const words = new Uint32Array(2);
  fill(new Uint8Array(words.buffer));
  return ((words[0] >>> 5) * 2 ** 26 + (words[1] >>> 6)) / 2 ** 53;
}

/** What packages from npm make their ids of: https://www.w3.org/TR/webcrypto-2/#Crypto-interface */
export const crypto = {
  getRandomValues<T extends ArrayBufferView>(values: T): T {
    if (!ArrayBuffer.isView(values)) throw new TypeError("getRandomValues fills a typed array");
    if (values.byteLength > BYTES_MAX) throw new RangeError(`getRandomValues gives ${BYTES_MAX} bytes at once`);
    fill(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return values;
  },

  /** An id of version 4. */
  randomUUID(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};

function fill(bytes: Uint8Array): void {
  bytes.set(system.getRandomBytes(bytes.length));
}
