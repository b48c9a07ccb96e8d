#!/bin/sh
# Builds echo-js.wasm. Needs Node.js 20 or newer.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
tools js

componentize-qjs --wit ../../wit --world bot --js echo.js --sync --minify --output echo-js.wasm
