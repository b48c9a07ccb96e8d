#!/bin/sh
# Builds weather-js.wasm. Needs Node.js 20 or newer, and `aviary`.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
project js bot.js
