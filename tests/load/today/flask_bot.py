"""An echo as tutorials write it: Flask, xmltodict, plain mode."""

import hashlib
import os
import time

import xmltodict
from flask import Flask, abort, request

TOKEN = os.environ["WECHAT_TOKEN"]

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def wechat():
    query = request.args
    signed = sorted([TOKEN, query.get("timestamp", ""), query.get("nonce", "")])
    if hashlib.sha1("".join(signed).encode()).hexdigest() != query.get("signature"):
        abort(403)
    if request.method == "GET":
        return query.get("echostr", "")
    message = xmltodict.parse(request.get_data())["xml"]
    if message["MsgType"] != "text":
        return "success"
    reply = {
        "ToUserName": message["FromUserName"],
        "FromUserName": message["ToUserName"],
        "CreateTime": int(time.time()),
        "MsgType": "text",
        "Content": message["Content"],
    }
    return xmltodict.unparse({"xml": reply})
