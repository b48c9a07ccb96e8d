// `console`: what a plugin prints goes to the host's log, and `aviary chat` and `aviary dev` show it.

import stderr from "wasi:cli/stderr@0.2.12";
import stdout from "wasi:cli/stdout@0.2.12";

/** How much the host takes at once. */
const CHUNK_BYTES = 4096;

type Stream = ReturnType<typeof stdout.getStdout>;

/** How many errors are told that led to one: they may go in a circle. */
const CAUSES_MAX = 5;

/** What was thrown, in words. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return shown(error);
  // What the host said instead of a result: a case of a variant in wit/.
  const { payload } = error as { payload?: { tag?: string; val?: unknown } };
  if (payload?.tag === undefined) return firstOf(() => `${error.name}: ${error.message}`);
  return payload.val === undefined ? payload.tag : `${payload.tag}: ${shown(payload.val)}`;
}

/** The same with its traceback, which QuickJS keeps apart from the message. */
export function traceback(error: unknown, causes = CAUSES_MAX): string {
  if (!(error instanceof Error)) return `thrown: ${reason(error)}`;
  const told = `${reason(error)}\n${firstOf(() => `${error.stack ?? ""}`).trimEnd()}`;
  if (error.cause === undefined || causes === 0) return told;
  return `${told}\ncaused by ${traceback(error.cause, causes - 1)}`;
}

/** A value in words. */
export function shown(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Error) return traceback(value);
  // What contains itself is no JSON, and what has no prototype is no string.
  const string = () => String(value);
  const json = () => JSON.stringify(value, (_, inner) => (inner instanceof Error ? reason(inner) : inner)) ?? string();
  return typeof value === "object" ? firstOf(json, string) : firstOf(string);
}

/** The first of these that throws nothing: what tells of an error must not be one more. */
function firstOf(...ways: Array<() => string>): string {
  for (const way of ways) {
    try {
      return way();
    } catch {
      // The next one.
    }
  }
  return "something that has no words";
}

function print(stream: Stream, values: unknown[]): void {
  const bytes = new TextEncoder().encode(`${values.map(shown).join(" ")}\n`);
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    stream.blockingWriteAndFlush(bytes.slice(at, at + CHUNK_BYTES));
  }
}

const out = (...values: unknown[]) => print(stdout.getStdout(), values);
const err = (...values: unknown[]) => print(stderr.getStderr(), values);

export const console = { log: out, info: out, debug: out, warn: err, error: err, trace: err };
