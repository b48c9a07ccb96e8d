#!/bin/sh
# Builds plugins/{{name}}.wasm. What requirements.txt names is installed into .venv, and again when that changed, unless its
# componentize-py is on the path.
#
# The plugin contains Python itself: WASI stays in, so that time, random and print work.
set -eu
cd "$(dirname "$0")"

wanted="componentize-py $(sed -n 's/^componentize-py==//p' requirements.txt)"
if [ "$(componentize-py --version 2>/dev/null)" != "$wanted" ]; then
    if ! cmp -s requirements.txt .venv/installed; then
        echo 'What requirements.txt names is installed into .venv.' >&2
        python3 -m venv .venv
        .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
        cp requirements.txt .venv/installed
    fi
    PATH=$PWD/.venv/bin:$PATH
fi
componentize-py --quiet --wit-path wit --world bot componentize main --output plugins/{{name}}.wasm
