// `URLSearchParams`: what a query is made of, or the body of a form. https://url.spec.whatwg.org/#interface-urlsearchparams

import { TextDecoder, TextEncoder } from "./text_coding";

/** These stand for themselves in `application/x-www-form-urlencoded`; all other bytes are `%` and two digits. */
const PLAIN = /[A-Za-z0-9*\-._]/;

type Init = string | Iterable<[string, string]> | Record<string, string>;

export class URLSearchParams {
  #pairs: [string, string][] = [];

  constructor(init: Init = "") {
    const pairs = typeof init === "string" ? parse(init) : Symbol.iterator in init ? init : Object.entries(init);
    for (const [name, value] of pairs as Iterable<[string, string]>) this.append(name, value);
  }

  get size(): number {
    return this.#pairs.length;
  }

  append(name: string, value: string): void {
    this.#pairs.push([String(name), String(value)]);
  }

  /** Gives the first of that name this value, and removes the others. */
  set(name: string, value: string): void {
    const at = this.#pairs.findIndex(([known]) => known === name);
    if (at < 0) return this.append(name, value);
    this.#pairs[at][1] = String(value);
    this.#pairs = this.#pairs.filter(([known], index) => known !== name || index === at);
  }

  get(name: string): string | null {
    return this.#pairs.find(([known]) => known === name)?.[1] ?? null;
  }

  getAll(name: string): string[] {
    return this.#pairs.filter(([known]) => known === name).map(([, value]) => value);
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  delete(name: string): void {
    this.#pairs = this.#pairs.filter(([known]) => known !== name);
  }

  entries(): IterableIterator<[string, string]> {
    return this.#pairs.values();
  }

  keys(): IterableIterator<string> {
    return this.#pairs.map(([name]) => name).values();
  }

  values(): IterableIterator<string> {
    return this.#pairs.map(([, value]) => value).values();
  }

  forEach(callback: (value: string, name: string, all: URLSearchParams) => void): void {
    for (const [name, value] of this.#pairs) callback(value, name, this);
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }

  toString(): string {
    return this.#pairs.map((pair) => pair.map(encoded).join("=")).join("&");
  }
}

function parse(query: string): [string, string][] {
  const parts = query.replace(/^\?/, "").split("&").filter((part) => part !== "");
  return parts.map((part) => {
    const [name, ...value] = part.split("=");
    return [decoded(name), decoded(value.join("="))];
  });
}

function encoded(text: string): string {
  const bytes = Array.from(new TextEncoder().encode(text));
  return bytes.map((byte) => (byte === 0x20 ? "+" : plain(byte) ?? `%${hexadecimal(byte)}`)).join("");
}

function plain(byte: number): string | null {
  const char = String.fromCharCode(byte);
  return PLAIN.test(char) ? char : null;
}

function hexadecimal(byte: number): string {
  return byte.toString(16).toUpperCase().padStart(2, "0");
}

/** A `%` without two digits behind it stands for itself. */
function decoded(text: string): string {
  const bytes: number[] = [];
  for (const part of text.replaceAll("+", " ").match(/%[0-9A-Fa-f]{2}|[^%]+|%/g) ?? []) {
    if (part.length === 3 && part.startsWith("%")) bytes.push(parseInt(part.slice(1), 16));
    else for (const byte of new TextEncoder().encode(part)) bytes.push(byte);
  }
  return new TextDecoder().decode(new Uint8Array(bytes));
}
