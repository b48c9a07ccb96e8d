#!/bin/sh
# Builds echo-py.wasm. Needs Python 3.10 or newer; everything else is installed into ./.venv.
#
# The component contains CPython itself, which takes the host ten seconds and more to compile, once.
set -eu
cd "$(dirname "$0")"

[ -d .venv ] || python3 -m venv .venv
.venv/bin/pip install --quiet --requirement requirements.txt
.venv/bin/componentize-py --quiet --wit-path ../../wit --world bot componentize app --output echo-py.wasm
