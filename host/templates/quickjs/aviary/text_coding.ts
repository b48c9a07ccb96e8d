// `TextEncoder` and `TextDecoder`, for UTF-8. QuickJS's own functions do the work: a loop over the bytes of a large answer
// would use up the call's computing time. Only the parts that are not UTF-8 are read byte by byte.

/** What QuickJS has, and TypeScript's library for ES2023 has not. */
declare function btoa(bytes: string): string;
declare const Uint8Array: typeof globalThis.Uint8Array & { fromBase64(text: string): Uint8Array };
declare global {
  interface String {
    toWellFormed(): string;
  }
}

/** Stands for bytes that are not UTF-8. */
const REPLACEMENT = 0xfffd;

/** How many bytes become a string at once: each is an argument of one call. */
const CHUNK_BYTES = 4096;

/** How many bytes of a character come after its first, at most. */
const TAIL_BYTES_MAX = 3;

export class TextEncoder {
  readonly encoding = "utf-8";

  encode(text = ""): Uint8Array {
    // `unescape` makes a character of each byte. Half a surrogate pair has none.
    const bytes = unescape(encodeURIComponent(String(text).toWellFormed()));
    return Uint8Array.fromBase64(btoa(bytes));
  }
}

export class TextDecoder {
  readonly encoding = "utf-8";
  readonly fatal: boolean;

  constructor(label = "utf-8", options: { fatal?: boolean } = {}) {
    if (!/^utf-?8$/i.test(label.trim())) throw new RangeError(`TextDecoder: ${label} is not known here, only utf-8`);
    this.fatal = options.fatal ?? false;
  }

  decode(input: ArrayBuffer | ArrayBufferView = new Uint8Array()): string {
    const text = chunks(view(input)).map((chunk) => this.#decoded(chunk)).join("");
    // A mark of the byte order is not text. (An expression would look for it everywhere.)
    return text.startsWith("\ufeff") ? text.slice(1) : text;
  }

  #decoded(bytes: Uint8Array): string {
    try {
      // `escape` writes each byte, as the character that stands for it, in the form that URLs have.
      return decodeURIComponent(escape(String.fromCharCode(...bytes)));
    } catch {
      if (this.fatal) throw new TypeError("TextDecoder: the bytes are not UTF-8");
      return mended(bytes);
    }
  }
}

function view(input: ArrayBuffer | ArrayBufferView): Uint8Array {
  if (input instanceof ArrayBuffer) return new Uint8Array(input);
  return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
}

/** Parts bytes between characters, so that what is wrong with one part costs the others nothing. */
function chunks(bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0, end = 0; at < bytes.length; at = end) {
    end = Math.min(at + CHUNK_BYTES, bytes.length);
    for (let tail = 0; tail < TAIL_BYTES_MAX && bytes[end] >= 0x80 && bytes[end] <= 0xbf; tail += 1) end += 1;
    parts.push(bytes.subarray(at, end));
  }
  return parts;
}

/** Text from bytes that are not UTF-8 all through: a replacement stands for what is there of a character that breaks off, and
 * for each byte that begins none. */
function mended(bytes: Uint8Array): string {
  const points = new Array<number>(bytes.length);
  let count = 0;
  // Of the character that is read: what is known of it, how many bytes it lacks, and what the next of them can be.
  let point = 0;
  let missing = 0;
  let least = 0x80;
  let most = 0xbf;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (missing > 0) {
      const goesOn = byte >= least && byte <= most;
      point = (point << 6) | (byte & 0x3f);
      missing = goesOn ? missing - 1 : 0;
      least = 0x80;
      most = 0xbf;
      if (missing === 0) points[count++] = goesOn ? point : REPLACEMENT;
      if (goesOn) continue;
    }
    if (byte < 0x80) points[count++] = byte;
    else if (byte < 0xc2 || byte > 0xf4) points[count++] = REPLACEMENT;
    else {
      missing = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
      point = byte & (0x3f >> missing);
      // Others would be the long form of a short one, half a surrogate pair, or beyond the last.
      if (byte === 0xe0) least = 0xa0;
      else if (byte === 0xed) most = 0x9f;
      else if (byte === 0xf0) least = 0x90;
      else if (byte === 0xf4) most = 0x8f;
    }
  }
  if (missing > 0) points[count++] = REPLACEMENT;
  points.length = count;
  return String.fromCodePoint(...points);
}
