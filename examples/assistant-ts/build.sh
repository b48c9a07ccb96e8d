#!/bin/sh
# Builds assistant-ts.wasm. Needs Node.js 20 or newer, and `aviary`.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
project ts bot.ts completion.ts history.ts
