"""An echo with wechatpy, behind Flask, plain mode."""

import os

from flask import Flask, abort, request
from wechatpy import create_reply, parse_message
from wechatpy.exceptions import InvalidSignatureException
from wechatpy.utils import check_signature

TOKEN = os.environ["WECHAT_TOKEN"]

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def wechat():
    query = request.args
    try:
        check_signature(TOKEN, query.get("signature"), query.get("timestamp"), query.get("nonce"))
    except InvalidSignatureException:
        abort(403)
    if request.method == "GET":
        return query.get("echostr", "")
    message = parse_message(request.data)
    if message.type != "text":
        return "success"
    return create_reply(message.content, message).render()
