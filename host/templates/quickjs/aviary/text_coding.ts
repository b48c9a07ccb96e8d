// `TextEncoder` and `TextDecoder`, for UTF-8.

const REPLACEMENT = 0xfffd;

export class TextEncoder {
  readonly encoding = "utf-8";

  encode(text = ""): Uint8Array {
    const bytes: number[] = [];
    // Iterating gives whole characters; half a surrogate pair is none.
    for (const char of String(text)) {
      const code = char.codePointAt(0) ?? REPLACEMENT;
      push(bytes, code >= 0xd800 && code <= 0xdfff ? REPLACEMENT : code);
    }
    return Uint8Array.from(bytes);
  }
}

function push(bytes: number[], code: number): void {
  if (code < 0x80) bytes.push(code);
  else if (code < 0x800) bytes.push(0xc0 | (code >> 6), tail(code));
  else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), tail(code >> 6), tail(code));
  else bytes.push(0xf0 | (code >> 18), tail(code >> 12), tail(code >> 6), tail(code));
}

function tail(code: number): number {
  return 0x80 | (code & 0x3f);
}

export class TextDecoder {
  readonly encoding = "utf-8";
  readonly fatal: boolean;

  constructor(label = "utf-8", options: { fatal?: boolean } = {}) {
    if (!/^utf-?8$/i.test(label.trim())) throw new RangeError(`TextDecoder: ${label} is not known here, only utf-8`);
    this.fatal = options.fatal ?? false;
  }

  decode(input: ArrayBuffer | ArrayBufferView = new Uint8Array()): string {
    const bytes =
      input instanceof ArrayBuffer
        ? new Uint8Array(input)
        : new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    const parts: string[] = [];
    // A mark of the byte order is not text.
    let at = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
    while (at < bytes.length) {
      const [code, length] = next(bytes, at);
      if (code === undefined && this.fatal) throw new TypeError(`TextDecoder: byte ${at} is not UTF-8`);
      parts.push(String.fromCodePoint(code ?? REPLACEMENT));
      at += length;
    }
    return parts.join("");
  }
}

/** The smallest code that takes so many bytes, by their number: a longer form of a smaller one is not UTF-8. */
const SMALLEST = [0, 0, 0x80, 0x800, 0x10000];

/** The character at a place, if it is one, and how many bytes it takes. */
function next(bytes: Uint8Array, at: number): [code: number | undefined, length: number] {
  const first = bytes[at] as number;
  if (first < 0x80) return [first, 1];
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return [undefined, 1];
  let code = first & (0xff >> (length + 1));
  for (let more = 1; more < length; more += 1) {
    const byte = bytes[at + more];
    if (byte === undefined || (byte & 0xc0) !== 0x80) return [undefined, more];
    code = (code << 6) | (byte & 0x3f);
  }
  const isCharacter = code >= (SMALLEST[length] as number) && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  return isCharacter ? [code, length] : [undefined, 1];
}
