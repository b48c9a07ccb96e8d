#!/bin/sh
# Builds assistant-ts.wasm. Needs Node.js 20 or newer.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
quickjs assistant-ts
