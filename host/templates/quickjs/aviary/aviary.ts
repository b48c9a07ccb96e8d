// Replies in one line each, settings, and the types of wit/.

import environment from "wasi:cli/environment@0.2.12";
import { shown } from "./console";
import type { Article, Reply } from "aviary:bot/types@0.1.0";

export type * from "aviary:bot/types@0.1.0";

/** A text; one of over 2,048 bytes comes in parts. */
export function text(content: string): Reply {
  return { tag: "text", val: string(content) };
}

/** A picture, by its media id. */
export function image(mediaId: string): Reply {
  return { tag: "image", val: string(mediaId) };
}

/** An article that opens a page. */
export function news(title: string, url: string, more: Partial<Pick<Article, "description" | "picUrl">> = {}): Reply {
  const [description, picUrl] = [optional(more.description), optional(more.picUrl)];
  return { tag: "news", val: [{ title: string(title), url: string(url), description, picUrl }] };
}

/** Handled without a word: no other plugin is asked. */
export function nothing(): Reply {
  return { tag: "nothing" };
}

/** Refuses another type here, where the traceback shows who gave it. Half of a pair, such as an emoji cut in two, is replaced. */
function string(value: string): string {
  if (typeof value !== "string") throw new TypeError(`a reply wants a string, and was given ${shown(value)}`);
  return value.replace(/\p{Surrogate}/gu, "\ufffd");
}

function optional(value: string | null | undefined): string | null {
  return value === undefined || value === null ? null : string(value);
}

/** The settings: `env` in aviary.toml. They are there when a message is, not while the plugin is built. */
export const env: Record<string, string | undefined> = new Proxy(
  {},
  { get: (_, name) => environment.getEnvironment().find(([known]) => known === name)?.[1] },
);
