// {{name}}: the bot. Every message starts it afresh; what has to outlive one is kept with `aviary:bot/kv@0.1.0`.

import { env, image, news, text } from "./aviary/aviary";
import type { Message, Reply } from "./aviary/aviary";

/** Answers a message. Nothing leaves it to the next plugin; what is thrown is a failure, which is logged. */
export async function handle({ body }: Message): Promise<Reply | undefined> {
  if (body.tag === "event" && body.val.tag === "subscribe") return text(greeting());
  if (body.tag === "text" && body.val.content === "你好") return text(greeting());
  if (body.tag === "text" && body.val.content === "文章") {
    return news("{{name}}", "https://example.com/", { description: "一篇文章" });
  }
  if (body.tag === "image") return image(body.val.mediaId);
}

/** A setting: `env` in aviary.toml. */
function greeting(): string {
  return env.GREETING ?? "你好！";
}
