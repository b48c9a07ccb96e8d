// `console`: what a plugin prints goes to the host's log, and `aviary chat` and `aviary dev` show it.

import stderr from "wasi:cli/stderr@0.2.12";
import stdout from "wasi:cli/stdout@0.2.12";

/** How much the host takes at once. */
const CHUNK_BYTES = 4096;

type Stream = ReturnType<typeof stdout.getStdout>;

/** What was thrown, in words. */
export function reason(error: unknown): string {
  if (!(error instanceof Error)) return shown(error);
  // What the host said instead of a result: a case of a variant in wit/.
  const { payload } = error as { payload?: { tag?: string; val?: unknown } };
  if (payload?.tag === undefined) return `${error.name}: ${error.message}`;
  return payload.val === undefined ? payload.tag : `${payload.tag}: ${payload.val}`;
}

/** The same with its traceback, which QuickJS keeps apart from the message. */
export function traceback(error: unknown): string {
  if (!(error instanceof Error)) return `thrown: ${reason(error)}`;
  const cause = error.cause === undefined ? "" : `\ncaused by ${traceback(error.cause)}`;
  return `${reason(error)}\n${(error.stack ?? "").trimEnd()}${cause}`;
}

/** A value in words. */
export function shown(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Error) return traceback(value);
  if (typeof value === "object" && value !== null) {
    try {
      return JSON.stringify(value);
    } catch {
      // It contains itself, or something that JSON has no word for.
    }
  }
  return String(value);
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
