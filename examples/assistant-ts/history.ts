// What was said before, for each user apart.

import kv from "aviary:bot/kv@0.1.0";

export interface Turn {
  role: "system" | "user" | "assistant";
  content: string;
}

/** How much is kept: what the model reads again with every question has to be paid for. */
const TURNS_MAX = 12;
const CHARS_MAX = 4000;

/** A conversation ends when nobody has said anything for so long. */
const KEEP_S = 3600;

const KEY = "history";

export function remembered(): Turn[] {
  const kept = kv.open("user").get(KEY);
  return kept === null ? [] : (JSON.parse(new TextDecoder().decode(kept)) as Turn[]);
}

/** Keeps the end of a conversation. */
export function remember(turns: Turn[]): void {
  const kept = turns.slice(-TURNS_MAX);
  while (kept.length > 0 && kept.reduce((sum, turn) => sum + turn.content.length, 0) > CHARS_MAX) kept.shift();
  kv.open("user").set(KEY, new TextEncoder().encode(JSON.stringify(kept)), KEEP_S);
}

export function forget(): void {
  kv.open("user").delete(KEY);
}
