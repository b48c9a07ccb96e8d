// Assistant: answers with a language model, over any API that is compatible with OpenAI's.
//
// A model takes longer than WeChat waits. Nothing here minds: the host puts the user off, and delivers late what comes late.
//
// | setting   | is                                                                                |
// |-----------|-----------------------------------------------------------------------------------|
// | BASE_URL  | where the API is, up to `/chat/completions`                                       |
// | MODEL     | which model to ask                                                                |
// | PROMPT    | who it is to be                                                                   |
// | STREAM    | `1` asks for the answer in pieces: some servers hang up on who waits for the whole |
// | BUSY_TEXT | what the user reads when there is no answer                                       |
//
// The API's key is no setting: the grant adds it to the request, and the plugin never sees it.

import callInfo from "aviary:bot/call-info@0.1.0";
import { env, text } from "./aviary/aviary";
import type { Message, Reply } from "./aviary/aviary";
import { completion } from "./completion";
import { forget, remember, remembered } from "./history";
import type { Turn } from "./history";

const BASE_URL = "https://api.deepseek.com";
const MODEL = "deepseek-chat";
const PROMPT = "你是一个公众号的助手。请用简短、友好的中文回答，不用 Markdown。";
const BUSY = "我这会儿没能想出来，请稍后再问一次。";

/** What is left of the call's time for the words that go out when the API did not answer. */
const RESERVE_MS = 300;

export async function handle({ body }: Message): Promise<Reply | undefined> {
  const said = await reply(body);
  return said === undefined ? undefined : text(said);
}

async function reply(body: Message["body"]): Promise<string | undefined> {
  const question = body.tag === "text" ? body.val.content.trim() : "";
  if (question === "") return undefined;
  if (question === "忘记") {
    forget();
    return "好的，之前聊的我都忘了。";
  }
  const asked: Turn = { role: "user", content: question };
  const history = optional(remembered) ?? [];
  try {
    const content = await answer([{ role: "system", content: env.PROMPT ?? PROMPT }, ...history, asked]);
    optional(() => remember([...history, asked, { role: "assistant", content }]));
    return content;
  } catch (error) {
    // The user is told as a person would be; the operator reads why.
    console.error(error);
    return env.BUSY_TEXT ?? BUSY;
  }
}

/** Does what an answer can do without: one that was paid for is not lost because the history is full, or not granted. */
function optional<T>(history: () => T): T | undefined {
  try {
    return history();
  } catch (error) {
    console.error("without history:", error);
  }
}

async function answer(messages: Turn[]): Promise<string> {
  const base = (env.BASE_URL ?? BASE_URL).replace(/\/+$/, "");
  const answer = await fetch(`${base}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: env.MODEL ?? MODEL, messages, stream: env.STREAM === "1" }),
    timeoutMs: Math.max(1, callInfo.current().timeLeftMs - RESERVE_MS),
  });
  const body = await answer.text();
  if (!answer.ok) throw new Error(`the model's API answered ${answer.status}: ${body.slice(0, 300)}`);
  return completion(body);
}
