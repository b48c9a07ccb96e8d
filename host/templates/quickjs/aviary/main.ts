// What the host calls: it hands messages to the bot, and shows the traceback of what goes wrong there.

import "./globals";
import { handle } from "../bot";
import { settled, unhandled } from "./promise.js";
import { traceback } from "./console";
import type { Message, Reply } from "./aviary";

export const handler = {
  handle(message: Message): Reply | null {
    try {
      return settled(handle(message)) ?? null;
    } catch (error) {
      console.error(traceback(error));
      // The failure's text.
      throw error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    } finally {
      for (const reason of unhandled.values()) console.error(`without \`await\`: ${traceback(reason)}`);
    }
  },
};
