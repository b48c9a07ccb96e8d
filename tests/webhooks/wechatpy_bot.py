"""A bot in safe mode, with wechatpy: its own SHA-1, AES and XML. It knows nothing of Aviary, nor of WeChat's retries.

It prints a line for every message it is asked about. `slow 7` makes it think for 7 seconds.
"""

import os
import time

from flask import Flask, abort, request
from wechatpy import create_reply, parse_message
from wechatpy.crypto import WeChatCrypto
from wechatpy.exceptions import InvalidSignatureException
from wechatpy.utils import check_signature

TOKEN = os.environ["WECHAT_TOKEN"]
crypto = WeChatCrypto(TOKEN, os.environ["WECHAT_ENCODING_AES_KEY"], os.environ["WECHAT_APP_ID"])

app = Flask(__name__)


@app.route("/wx", methods=["GET", "POST"])
def wx():
    query = request.args
    try:
        check_signature(TOKEN, query.get("signature"), query.get("timestamp"), query.get("nonce"))
        if request.method == "GET":
            return query.get("echostr", "")
        signed = query.get("msg_signature"), query.get("timestamp"), query.get("nonce")
        message = parse_message(crypto.decrypt_message(request.data, *signed))
    except InvalidSignatureException:
        abort(403)
    return crypto.encrypt_message(answer(message).render(), query.get("nonce"), query.get("timestamp"))


def answer(message):
    if message.type == "text":
        print(f"asked about {message.content}", flush=True)
        if message.content.startswith("slow "):
            time.sleep(float(message.content.split()[1]))
        return create_reply(f"你说：{message.content}", message)
    print(f"asked about {message.type}", flush=True)
    if message.type == "event" and message.event == "subscribe":
        return create_reply("欢迎关注！", message)
    return create_reply([{"title": "不懂", "description": "", "image": "", "url": "https://example.com/"}], message)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=0)
