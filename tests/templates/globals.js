// A bot that uses what QuickJS does not have by itself.
import kv from "aviary:bot/kv@0.1.0";
import { env, news, text } from "./aviary/aviary";
export async function handle({ body }) {
  switch (body.val.content) {
    case "fetch": {
      const answer = await fetch("https://api.example.com/v1", { method: "post", body: "你好", headers: { "X-A": "1" } });
      return text(`${answer.status} ${(await answer.json()).city}`);
    }
    case "denied":
      return fetch("https://other.example.com/").catch((error) => text(`${error.name}: ${error.message}`));
    case "no kind":
      return { tag: "card", val: "a string" };
    case "settled":
      const all = await Promise.any([Promise.reject(1), Promise.reject(2)]).catch((error) => error);
      return text(`${all instanceof AggregateError} ${all.errors} ${await Promise.resolve(3).finally()}`);
    case "promises":
      return text((await Promise.all([1, Promise.resolve(2), (async () => 3)()])).join());
    case "coding":
      return text(new TextDecoder().decode(new TextEncoder().encode("你🦜é")) + new TextDecoder().decode(Uint8Array.of(0xff)));
    case "large": {
      const large = "鹦鹉 says hi! ".repeat(1 << 14);
      const bytes = new TextEncoder().encode(large);
      return text(`${bytes.length} ${new TextDecoder().decode(bytes) === large}`);
    }
    case "one bad byte": {
      const bytes = repeated([0xe9, 0xb9, 0xa6], 1 << 17);
      bytes[bytes.length - 1] = 0xff;
      return text(`${new TextDecoder().decode(bytes).length}`);
    }
    case "GBK":
      return text(`${new TextDecoder().decode(repeated([0xc4, 0xe3, 0xba, 0xc3], 1 << 15)).length}`);
    case "chance": {
      const drawn = Array.from({ length: 1_000 }, Math.random);
      if (!drawn.every((number) => number >= 0 && number < 1)) return text("beyond its bounds");
      const [bucket, ids] = [kv.open("plugin"), [drawn[0], crypto.randomUUID(), crypto.getRandomValues(new Uint16Array(4))]];
      const before = bucket.get("ids");
      bucket.set("ids", new TextEncoder().encode(ids.join(" ")), null);
      if (before === null) return text(ids[1]);
      const known = new TextDecoder().decode(before).split(" ");
      return text(`${ids.filter((id) => known.includes(`${id}`)).length} of ${known.length} drawn again`);
    }
    case "odd bodies": {
      const [url, told] = ["https://api.example.com/v1", []];
      for (const init of [{ body: 5 }, { body: { a: 1 } }, { timeoutMs: "soon" }]) await fetch(url, init).catch((error) => told.push(error.name));
      const { status } = await fetch(url, { method: "POST", body: new DataView(new ArrayBuffer(8), 2, 4), timeoutMs: 1_000 });
      return text(`${told} ${status} ${"half of 😀".slice(0, 9)}`);
    }
    case "query": {
      const [made, read] = [new URLSearchParams({ city: "北京 朝阳", key: "a&b=*" }), new URLSearchParams("?a=1&b=%E4%BD%A0+x&a=2=3&c&%")];
      made.append("key", "two");
      made.set("key", "100%~");
      const { status } = await fetch("https://api.example.com/v1", { method: "POST", body: made });
      return text(`${made} ${read.getAll("a")} ${read.get("b")} ${read.get("c")} ${read.get("d")} ${[...read].length} ${status}`);
    }
    case "forgotten":
      (async () => { await null; throw new RangeError("nobody waits"); })();
      queueMicrotask(() => { throw new RangeError("nobody can wait"); });
      return text("answered");
    case "many":
      return text(`${(await Promise.all(Array.from({ length: 4_000 }, (_, index) => index))).length}`);
    case "console":
      for await (const part of (async function* () { yield "one"; yield { two: 2 }; })()) console.log("part", part);
      return text(`${env.CITY} ${env.NONE}`);
    case "refused":
      kv.open("user").set("", new TextEncoder().encode("a value"), null);
    case "no reply":
      return "a string";
    case "no string":
      return text(5);
    case "no link":
      return news("a title", undefined);
    case "no description":
      return news("a title", "https://example.com/", { description: 5.5 });
    case "odd words": {
      const [round, bare] = [new RangeError("goes round"), Object.create(null)];
      round.cause = round;
      bare.itself = bare;
      console.log(bare, { why: new RangeError("inside") }, () => 1, NaN);
      Promise.reject(bare);
      throw round;
    }
    case "odd reply":
      Promise.reject(Object.create(null, { toJSON: { value: () => { throw 1; } } }));
      return text("answered");
    case "never":
      await new Promise(() => {});
  }
}
function repeated(bytes, times) {
  const all = new Uint8Array(bytes.length * times);
  all.set(bytes);
  for (let end = bytes.length; end < all.length; end *= 2) all.copyWithin(end, 0, end);
  return all;
}
