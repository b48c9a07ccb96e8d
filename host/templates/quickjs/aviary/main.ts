// What the host calls: it hands messages to the bot, and shows the traceback of what goes wrong there.

import "./globals";
import { handle } from "../bot";
import { settled, unhandled } from "./promise.js";
import { reason, shown, traceback } from "./console";
import type { Message, Reply } from "./aviary";

export const handler = {
  handle(message: Message): Reply | null {
    try {
      return reply(settled(handle(message)));
    } catch (error) {
      console.error(traceback(error));
      // The failure's text.
      throw reason(error);
    } finally {
      for (const reason of unhandled.values()) console.error(`without \`await\`: ${traceback(reason)}`);
    }
  },
};

// The bot is loaded once, at the build, which fails over what was rejected there: otherwise every message would tell of it.
for (const reason of unhandled.values()) throw new Error(`at the build, without \`await\`: ${traceback(reason)}`);

/** Every kind of reply. */
const TAGS: Record<Reply["tag"], true> = {
  text: true,
  image: true,
  voice: true,
  video: true,
  music: true,
  news: true,
  "transfer-customer-service": true,
  nothing: true,
  other: true,
};

/** What `handle` returned, if it is a reply: the runtime would end without a word of where it is from. */
function reply(returned: Reply | undefined): Reply | null {
  if (returned === undefined || returned === null) return null;
  if (!Object.hasOwn(TAGS, returned.tag)) throw new TypeError(`handle returned ${shown(returned)}, which is no reply`);
  return returned;
}
