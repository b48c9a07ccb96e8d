#!/bin/sh
# Builds echo-ts.wasm. Needs Node.js 20 or newer.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
tools ts

esbuild echo.ts --bundle --format=esm --external:'aviary:*' --log-level=warning --outfile=build/echo.js
componentize-qjs --wit ../../wit --world bot --js build/echo.js --sync --minify --output echo-ts.wasm
