#!/bin/sh
# Builds echo-go.wasm. Needs Python 3 (Go comes as a wheel) and cargo; all that they install goes into ./.tools.
#
# The first run compiles wit-bindgen, which takes some minutes. The result is a core module: the host makes the
# component of it.
set -eu
cd "$(dirname "$0")"
tools=$PWD/.tools
wit_bindgen=0.63.0

[ -d "$tools/venv" ] || python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --requirement requirements.txt

if [ ! -d "$tools/pkg-$wit_bindgen" ]; then
    cargo install wit-bindgen-cli --version "$wit_bindgen" --locked --no-default-features --features go \
        --debug --force --root "$tools"
    # What the bindings import, go.bytecodealliance.org/pkg, comes with their generator: the same version, and no module
    # proxy has to be reachable.
    rm -rf "$tools/pkg.new"
    cp -R "${CARGO_HOME:-$HOME/.cargo}/registry/src/"*"/wit-bindgen-go-$wit_bindgen/src/pkg" "$tools/pkg.new"
    mv "$tools/pkg.new" "$tools/pkg-$wit_bindgen"
fi

"$tools/bin/wit-bindgen" go ../../wit --world bot

export PATH="$tools/venv/bin:$PATH" GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod
go mod edit -replace "go.bytecodealliance.org/pkg=./.tools/pkg-$wit_bindgen"
# The runtime reaches into Go's own, which the linker would refuse.
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o echo-go.wasm .
