// What a model said: in one piece, or in many.

interface Answer {
  error?: { message?: string };
  choices?: Array<{ message?: Piece; delta?: Piece }>;
}

interface Piece {
  content?: string | null;
}

/** Returns the text of an answer, whole (`{…}`) or streamed (lines of `data: {…}`). A server may stream unasked. */
export function completion(body: string): string {
  const pieces = body.trimStart().startsWith("{") ? [JSON.parse(body) as Answer] : streamed(body);
  const said = pieces.map(piece).join("");
  // Some models think aloud first.
  const content = said.replace(/^\s*<think>[\s\S]*?<\/think>/, "").trim();
  if (content === "") throw new Error(`the model said nothing: ${body.slice(0, 300)}`);
  return content;
}

function streamed(body: string): Answer[] {
  const data = body.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  const events = data.map((line) => line.slice("data:".length).trim());
  // A stream that broke off is no answer: nobody wants half a sentence.
  if (!events.includes("[DONE]")) throw new Error(`the model's answer broke off after ${events.length} pieces`);
  return events.filter((event) => event !== "[DONE]").map((event) => JSON.parse(event) as Answer);
}

function piece({ error, choices }: Answer): string {
  if (error) throw new Error(`the model's API said: ${error.message ?? "an error"}`);
  const [choice] = choices ?? [];
  return (choice?.message ?? choice?.delta)?.content ?? "";
}
