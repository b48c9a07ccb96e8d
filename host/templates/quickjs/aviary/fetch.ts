// `fetch`, on the host's HTTP: what aviary.toml grants under `http`, and no redirects.

import http from "aviary:bot/http@0.1.0";
import { reason, shown } from "./console";
import { URLSearchParams } from "./url_search_params";

/** The kind of a form's body. */
const FORM = "application/x-www-form-urlencoded;charset=UTF-8";

export class Headers {
  #values = new Map<string, string>();

  constructor(init: HeadersInit = {}) {
    const pairs = Symbol.iterator in init ? init : Object.entries(init);
    for (const [name, value] of pairs as Iterable<[string, string]>) this.append(name, value);
  }

  append(name: string, value: string): void {
    const before = this.get(name);
    this.set(name, before === null ? value : `${before}, ${value}`);
  }

  set(name: string, value: string): void {
    this.#values.set(name.toLowerCase(), String(value));
  }

  get(name: string): string | null {
    return this.#values.get(name.toLowerCase()) ?? null;
  }

  has(name: string): boolean {
    return this.#values.has(name.toLowerCase());
  }

  delete(name: string): void {
    this.#values.delete(name.toLowerCase());
  }

  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.#values.entries();
  }
}

export type HeadersInit = Headers | Iterable<[string, string]> | Record<string, string>;

export type Body = string | ArrayBufferView | ArrayBuffer | URLSearchParams;

export interface RequestInit {
  method?: string;
  headers?: HeadersInit;
  body?: Body | null;
  /** How long it may take. Without it: as long as the call has left. */
  timeoutMs?: number;
}

export class Response {
  readonly status: number;
  readonly ok: boolean;
  readonly headers: Headers;
  readonly url: string;
  #body: Uint8Array;

  constructor(url: string, status: number, headers: Headers, body: Uint8Array) {
    this.url = url;
    this.status = status;
    this.ok = status >= 200 && status < 300;
    this.headers = headers;
    this.#body = body;
  }

  async bytes(): Promise<Uint8Array> {
    return this.#body;
  }

  async arrayBuffer(): Promise<ArrayBufferLike> {
    return this.#body.slice().buffer;
  }

  async text(): Promise<string> {
    return new TextDecoder().decode(this.#body);
  }

  async json(): Promise<any> {
    return JSON.parse(await this.text());
  }
}

/** Sends a request and waits for the whole answer. Throws a `TypeError` if there is none. */
export async function fetch(url: string, init: RequestInit = {}): Promise<Response> {
  const { method = "GET", body = null, timeoutMs = null } = init;
  const headers = new Headers(init.headers);
  if (body instanceof URLSearchParams && !headers.has("content-type")) headers.set("content-type", FORM);
  try {
    if (timeoutMs !== null && !(Number.isFinite(timeoutMs) && timeoutMs >= 0)) {
      throw new TypeError(`timeoutMs is ${shown(timeoutMs)}, and no number of milliseconds`);
    }
    const answer = http.send({
      method: method.toUpperCase(),
      url: String(url),
      headers: [...headers],
      body: body === null ? null : bytesOf(body),
      timeoutMs,
    });
    return new Response(url, answer.status, new Headers(answer.headers), answer.body);
  } catch (error) {
    throw new TypeError(`fetch ${url}: ${reason(error)}`);
  }
}

function bytesOf(body: Body): Uint8Array {
  if (body instanceof URLSearchParams) return bytesOf(String(body));
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (typeof body === "string") return new TextEncoder().encode(body);
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  throw new TypeError(`its body is ${shown(body)}, and no string, bytes or URLSearchParams`);
}
