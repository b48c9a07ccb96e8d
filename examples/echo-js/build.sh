#!/bin/sh
# Builds echo-js.wasm. Needs Node.js 20 or newer; everything else is installed into ./node_modules.
set -eu
cd "$(dirname "$0")"

# Not `npm ci`: it wants every optional package of componentize-qjs in the lock file, and some were never published.
npm install --no-save
npm run build
