// What the bots in JavaScript and TypeScript have in common: QuickJS is the language alone, without settings, a log, `fetch` or
// `TextDecoder`. Every call of the host waits until it is done, so that nothing here needs a promise.

import http from "aviary:bot/http@0.1.0";
import environment from "wasi:cli/environment@0.2.12";
import stderr from "wasi:cli/stderr@0.2.12";

import type { Reply } from "aviary:bot/types@0.1.0";

/** How much the host takes of a log line at once. */
const CHUNK_BYTES = 4096;

/** A reply of up to 2,048 bytes. */
export function text(content: string): Reply {
  return { tag: "text", val: content };
}

/** A setting: `env` in aviary.toml. */
export function setting(name: string): string | undefined {
  return environment.getEnvironment().find(([known]: [string, string]) => known === name)?.[1];
}

/** Writes a line to the log. */
export function log(line: string): void {
  const bytes = encoded(`${line}\n`);
  const stream = stderr.getStderr();
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    stream.blockingWriteAndFlush(bytes.slice(at, at + CHUNK_BYTES));
  }
}

export interface Request {
  method: string;
  headers?: Array<[string, string]>;
  body?: string;
  /** How long it may take; without it, as long as the call has left. */
  timeoutMs?: number;
}

export interface Answer {
  status: number;
  body: string;
}

/** Sends a request and waits for the whole answer, whatever its status. Throws if there is none. */
export function send(url: string, { method, headers = [], body, timeoutMs }: Request): Answer {
  const request = {
    method,
    url,
    headers,
    body: body === undefined ? null : encoded(body),
    timeoutMs: timeoutMs ?? null,
  };
  try {
    const answer = http.send(request);
    return { status: answer.status, body: decoded(answer.body) };
  } catch (error) {
    throw new Error(`${method} ${url}: ${reason(error)}`);
  }
}

export function encoded(text: string): Uint8Array {
  const bytes = unescape(encodeURIComponent(text.toWellFormed()));
  return Uint8Array.from(bytes, (byte) => byte.charCodeAt(0));
}

export function decoded(bytes: Iterable<number>): string {
  let escaped = "";
  for (const byte of bytes) escaped += `%${byte.toString(16).padStart(2, "0")}`;
  return decodeURIComponent(escaped);
}

/** What is thrown for a `result` that is an error: a case of the interface's `error`. */
function reason(error: unknown): string {
  const { tag, val } = (error as { payload?: { tag?: string; val?: unknown } }).payload ?? (error as { tag?: string; val?: unknown });
  return tag === undefined ? String(error) : [tag, val].filter((part) => part !== undefined).join(": ");
}
