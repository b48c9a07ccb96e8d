// An echo with co-wechat, on koa, plain mode.
import wechat from "co-wechat";
import Koa from "koa";

const app = new Koa();

// An empty reply becomes an empty body, which WeChat takes for an answer.
const echo = async (message) => (message.MsgType === "text" ? message.Content : "");

app.use(wechat({ token: process.env.WECHAT_TOKEN }).middleware(echo));

const server = app.listen(0, "127.0.0.1", () => {
  console.log(`The bot listens on http://127.0.0.1:${server.address().port}/`);
});
