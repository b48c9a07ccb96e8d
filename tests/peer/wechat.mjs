// WeChat's side of the wire, written from its documentation and from nothing else: none of the host's code is used here,
// and only what Node itself brings. https://developers.weixin.qq.com/doc/service/guide/dev/push/encryption.html
//
// Standard input is one JSON object:
//
//   url, token              the account as the console knows it
//   mode                    plain | compatible | safe: how pushes are sent
//   encoding_aes_key, app_id  for the encrypted modes
//   asks                    a list of { "check": ECHOSTR }, { "text": TEXT, "tries": COUNT } and { "event": NAME }
//
// For every try, in order, standard output gets one JSON line:
//
//   status                  of HTTP
//   form                    echostr | success | empty | plain | encrypted | other
//   reply                   To, From, MsgType and Content of a plain or decrypted reply
//   fault                   why WeChat would not show this answer to the user
//
// Several tries of one text are sent at once; each is signed and encrypted anew, as a retry may be.

import { createCipheriv, createDecipheriv, createHash, randomBytes, randomInt } from 'node:crypto';
import { request } from 'node:http';
import { text as readAll } from 'node:stream/consumers';

const USER = 'oPeer';
const ACCOUNT = 'gh_peer';
const BLOCK = 32;
const CLOCKS_DIFFER_S = 60;

const { url, token, mode, encoding_aes_key, app_id, asks } = JSON.parse(await readAll(process.stdin));
const key = encoding_aes_key && Buffer.from(`${encoding_aes_key}=`, 'base64');
const randomBlocks = new Set();
// Another number at every run, so that no message is taken for an earlier run's.
let lastMsgId = randomInt(2 ** 47);

for (const ask of asks) {
  const push = 'check' in ask ? undefined : pushOf(ask);
  const tries = Array.from({ length: ask.tries ?? 1 }, () => (push ? send(push) : check(ask.check)));
  for (const answer of await Promise.all(tries)) console.log(JSON.stringify(answer));
}

/** The URL check: signed like a push, and never encrypted. */
async function check(echostr) {
  const { status, body } = await exchange('GET', { ...signed(), echostr });
  const form = status === 200 && body === echostr ? 'echostr' : body === '' ? 'empty' : 'other';
  return { status, form };
}

async function send(push) {
  const query = { ...signed(), openid: USER };
  let body = push;
  if (mode !== 'plain') {
    const encrypt = encrypted(push);
    query.encrypt_type = 'aes';
    query.msg_signature = sha1(token, query.timestamp, query.nonce, encrypt);
    const cipher = `<Encrypt><![CDATA[${encrypt}]]></Encrypt>`;
    body =
      mode === 'safe'
        ? `<xml>\n    <ToUserName><![CDATA[${ACCOUNT}]]></ToUserName>\n    ${cipher}\n</xml>`
        : push.replace(/<\/xml>$/, `${cipher}\n</xml>`);
  }
  return understood(await exchange('POST', query, body));
}

function pushOf({ text, event }) {
  const content =
    event === undefined
      ? `<MsgType><![CDATA[text]]></MsgType>\n<Content><![CDATA[${text}]]></Content>\n<MsgId>${++lastMsgId}</MsgId>`
      : `<MsgType><![CDATA[event]]></MsgType>\n<Event><![CDATA[${event}]]></Event>`;
  return `<xml><ToUserName><![CDATA[${ACCOUNT}]]></ToUserName>
<FromUserName><![CDATA[${USER}]]></FromUserName>
<CreateTime>${now()}</CreateTime>
${content}
</xml>`;
}

/** Reads an answer as WeChat does, and finds every fault that it would find. */
function understood({ status, body }) {
  if (body === 'success') return { status, form: 'success' };
  if (body === '') return { status, form: 'empty' };
  const envelope =
    /^<xml><Encrypt><!\[CDATA\[([A-Za-z0-9+/]+=*)\]\]><\/Encrypt><MsgSignature><!\[CDATA\[([0-9a-f]{40})\]\]><\/MsgSignature><TimeStamp>([0-9]+)<\/TimeStamp><Nonce><!\[CDATA\[([^\]]+)\]\]><\/Nonce><\/xml>$/.exec(
      body,
    );
  const form = envelope ? 'encrypted' : body.startsWith('<xml>') ? 'plain' : 'other';
  try {
    if (envelope) return { status, form, reply: replyOf(opened(envelope)) };
    return { status, form, reply: replyOf(body) };
  } catch (error) {
    return { status, form, fault: error.message };
  }
}

function opened([, encrypt, msgSignature, timeStamp, nonce]) {
  if (sha1(token, timeStamp, nonce, encrypt) !== msgSignature) throw new Error('MsgSignature does not fit');
  if (Math.abs(Number(timeStamp) - now()) > CLOCKS_DIFFER_S) throw new Error(`TimeStamp is ${timeStamp}, not now`);
  return decrypted(encrypt);
}

function replyOf(xml) {
  const reply =
    /^<xml><ToUserName><!\[CDATA\[([^\]]*)\]\]><\/ToUserName><FromUserName><!\[CDATA\[([^\]]*)\]\]><\/FromUserName><CreateTime>([0-9]+)<\/CreateTime><MsgType><!\[CDATA\[(text)\]\]><\/MsgType><Content><!\[CDATA\[([^]*)\]\]><\/Content><\/xml>$/.exec(
      xml,
    );
  if (!reply) throw new Error(`no text reply: ${xml}`);
  const [, to, from, createTime, msgType, content] = reply;
  if (to !== USER || from !== ACCOUNT) throw new Error(`the reply goes from ${from} to ${to}`);
  if (Math.abs(Number(createTime) - now()) > CLOCKS_DIFFER_S) throw new Error(`CreateTime is ${createTime}, not now`);
  return { ToUserName: to, FromUserName: from, MsgType: msgType, Content: content };
}

function encrypted(message) {
  const text = Buffer.from(message);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  const full = Buffer.concat([randomBytes(16), length, text, Buffer.from(app_id)]);
  const pad = BLOCK - (full.length % BLOCK);
  const cipher = createCipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false);
  return Buffer.concat([cipher.update(full), cipher.update(Buffer.alloc(pad, pad)), cipher.final()]).toString('base64');
}

function decrypted(encrypt) {
  const bytes = Buffer.from(encrypt, 'base64');
  if (bytes.length === 0 || bytes.length % BLOCK !== 0) throw new Error(`the ciphertext has ${bytes.length} bytes`);
  const decipher = createDecipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false);
  const padded = Buffer.concat([decipher.update(bytes), decipher.final()]);
  const pad = padded[padded.length - 1];
  if (pad < 1 || pad > BLOCK || padded.subarray(-pad).some((byte) => byte !== pad)) throw new Error('the padding is wrong');
  const full = padded.subarray(0, -pad);
  const end = 20 + full.readUInt32BE(16);
  if (full.subarray(end).toString() !== app_id) throw new Error('the reply is for another app id');
  const random = full.toString('hex', 0, 16);
  if (randomBlocks.has(random)) throw new Error('a random block was used twice');
  randomBlocks.add(random);
  return full.toString('utf8', 20, end);
}

function signed() {
  const [timestamp, nonce] = [String(now()), String(randomInt(1_000_000_000, 2_000_000_000))];
  return { signature: sha1(token, timestamp, nonce), timestamp, nonce };
}

function sha1(...parts) {
  return createHash('sha1').update(parts.sort().join('')).digest('hex');
}

function now() {
  return Math.floor(Date.now() / 1000);
}

function exchange(method, query, body = '') {
  return new Promise((resolve, reject) => {
    const headers = { 'Content-Type': 'text/xml', 'Content-Length': Buffer.byteLength(body), 'User-Agent': 'Mozilla/4.0' };
    const target = `${url}?${new URLSearchParams(query)}`;
    const call = request(target, { method, headers: method === 'GET' ? {} : headers, agent: false }, async (response) => {
      resolve({ status: response.statusCode, body: await readAll(response) });
    });
    call.on('error', reject);
    call.end(body);
  });
}
