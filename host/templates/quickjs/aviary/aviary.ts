// Replies in one line each, settings, and the types of wit/.

import environment from "wasi:cli/environment@0.2.12";
import type { Article, Reply } from "aviary:bot/types@0.1.0";

export type * from "aviary:bot/types@0.1.0";

/** A text of up to 2,048 bytes. */
export function text(content: string): Reply {
  return { tag: "text", val: string(content) };
}

/** A picture, by its media id. */
export function image(mediaId: string): Reply {
  return { tag: "image", val: string(mediaId) };
}

/** An article that opens a page. */
export function news(title: string, url: string, more: Partial<Pick<Article, "description" | "picUrl">> = {}): Reply {
  return { tag: "news", val: [{ title, url, description: more.description ?? null, picUrl: more.picUrl ?? null }] };
}

/** Refuses another type here, where the traceback shows who gave it. */
function string(value: string): string {
  if (typeof value !== "string") throw new TypeError(`a reply wants a string, and was given ${value}`);
  return value;
}

/** Handled without a word: no other plugin is asked. */
export function nothing(): Reply {
  return { tag: "nothing" };
}

/** The settings: `env` in aviary.toml. They are there when a message is, not while the plugin is built. */
export const env: Record<string, string | undefined> = new Proxy(
  {},
  { get: (_, name) => environment.getEnvironment().find(([known]) => known === name)?.[1] },
);
