// An echo with co-wechat, on koa, plain mode.
import wechat from "co-wechat";
import Koa from "koa";

const app = new Koa();

// What is empty co-wechat answers with an empty body, as WeChat allows.
app.use(wechat({ token: process.env.WECHAT_TOKEN }).middleware(async (message) => (message.MsgType === "text" ? message.Content : "")));

const server = app.listen(0, "127.0.0.1", () => {
  console.log(`The bot listens on http://127.0.0.1:${server.address().port}/`);
});
