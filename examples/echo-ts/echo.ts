// Echo: says every text back, word for word. Anything else is left to the next plugin.

import type { Message, Reply } from "aviary:bot/types@0.1.0";

export const handler = {
  // What is returned is the reply, `undefined` is none; what is thrown is the failure's text.
  handle({ body }: Message): Reply | undefined {
    // WeChat refuses an empty reply.
    if (body.tag === "text" && body.val.content !== "") {
      return { tag: "text", val: body.val.content };
    }
    return undefined;
  },
};
