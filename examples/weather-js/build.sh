#!/bin/sh
# Builds weather-js.wasm. Needs Node.js 20 or newer.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
quickjs weather-js
