// What bots take for granted and QuickJS does not have. Imported before the bot, so that it is there when that is loaded.

import { console } from "./console";
import { fetch, Headers, Response } from "./fetch";
import { Promise, queueMicrotask } from "./promise.js";
import { crypto, random } from "./random";
import { TextDecoder, TextEncoder } from "./text_coding";
import { URLSearchParams } from "./url_search_params";

const globals = {
  console,
  crypto,
  fetch,
  Headers,
  Response,
  queueMicrotask,
  TextDecoder,
  TextEncoder,
  URLSearchParams,
};

declare global {
  var console: typeof globals.console;
  var crypto: typeof globals.crypto;
  var fetch: typeof globals.fetch;
  var Headers: typeof globals.Headers;
  var Response: typeof globals.Response;
  var queueMicrotask: (callback: () => void) => void;
  var TextDecoder: typeof globals.TextDecoder;
  var TextEncoder: typeof globals.TextEncoder;
  var URLSearchParams: typeof globals.URLSearchParams;
}

Object.assign(globalThis, globals, { Promise });
Math.random = random;
