// `TextEncoder` and `TextDecoder`, for UTF-8. QuickJS's own functions do the work: a loop over the bytes of a large answer
// would use up the call's computing time.

/** What QuickJS has, and TypeScript's library for ES2023 has not. */
declare function btoa(bytes: string): string;
declare const Uint8Array: typeof globalThis.Uint8Array & { fromBase64(text: string): Uint8Array };
declare global {
  interface String {
    toWellFormed(): string;
  }
}

/** Stands for bytes that are not UTF-8. */
const REPLACEMENT = "\ufffd";

/** How characters of three and of four bytes begin; another second byte would make them none, or the long form of a short one. */
const OF_3 = "(?:\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]|\xed[\x80-\x9f])";
const OF_4 = "(?:\xf0[\x90-\xbf]|[\xf1-\xf3][\x80-\xbf]|\xf4[\x80-\x8f])";
const TAIL = "[\x80-\xbf]";

/** A whole character that is not ASCII; or what is there of one, or stands where none begins. */
const PIECE = new RegExp(
  `([\xc2-\xdf]${TAIL}|${OF_3}${TAIL}|${OF_4}${TAIL}{2})|${OF_3}|${OF_4}${TAIL}?|[\x80-\xff]`,
  "g",
);

/** How many bytes become a string at once: each is an argument of one call. */
const CHUNK_BYTES = 4096;

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
    const bytes = characters(input).replace(/^\xef\xbb\xbf/, ""); // A mark of the byte order is not text.
    try {
      return decoded(bytes);
    } catch {
      if (this.fatal) throw new TypeError("TextDecoder: the bytes are not UTF-8");
      return bytes.replace(PIECE, (piece, whole) => (whole === undefined ? REPLACEMENT : decoded(piece)));
    }
  }
}

/** Bytes as a string with a character for each. */
function characters(input: ArrayBuffer | ArrayBufferView): string {
  const bytes =
    input instanceof ArrayBuffer
      ? new Uint8Array(input)
      : new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
  const parts: string[] = [];
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    parts.push(String.fromCharCode(...bytes.subarray(at, at + CHUNK_BYTES)));
  }
  return parts.join("");
}

/** Text from the characters of its bytes. Throws if they are not UTF-8. */
function decoded(bytes: string): string {
  return decodeURIComponent(escape(bytes));
}
