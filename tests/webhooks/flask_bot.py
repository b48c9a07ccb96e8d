"""A bot as tutorials show it: Flask, xmltodict, plain mode. It knows nothing of Aviary, nor of WeChat's retries.

It prints a line for every message it is asked about. `slow 7` makes it think for 7 seconds.
"""

import hashlib
import os
import time

import xmltodict
from flask import Flask, abort, request

TOKEN = os.environ["WECHAT_TOKEN"]

app = Flask(__name__)


@app.route("/wx", methods=["GET", "POST"])
def wx():
    parts = sorted([TOKEN, request.args.get("timestamp", ""), request.args.get("nonce", "")])
    if hashlib.sha1("".join(parts).encode()).hexdigest() != request.args.get("signature"):
        abort(403)
    if request.method == "GET":
        return request.args.get("echostr", "")
    return answer(xmltodict.parse(request.get_data())["xml"])


def answer(message):
    content = message.get("Content") or message.get("Event") or message["MsgType"]
    print(f"asked about {content}", flush=True)
    if message["MsgType"] == "event":
        return reply(message, "欢迎关注！") if message["Event"] == "subscribe" else "success"
    if message["MsgType"] != "text":
        return "success"
    if content.startswith("slow "):
        time.sleep(float(content.split()[1]))
    return reply(message, f"你说：{content}")


def reply(message, content):
    return xmltodict.unparse(
        {
            "xml": {
                "ToUserName": message["FromUserName"],
                "FromUserName": message["ToUserName"],
                "CreateTime": int(time.time()),
                "MsgType": "text",
                "Content": content,
            }
        }
    )


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=0)
