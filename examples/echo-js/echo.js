// Echo: says every text back, word for word. Anything else is left to the next plugin.

export const handler = {
  // What is returned is the reply, `undefined` is none; what is thrown is the failure's text.
  handle({ body }) {
    // WeChat refuses an empty reply.
    if (body.tag === "text" && body.val.content !== "") {
      return { tag: "text", val: body.val.content };
    }
  },
};
