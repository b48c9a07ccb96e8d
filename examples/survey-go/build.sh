#!/bin/sh
# Builds survey-go.wasm. Needs Python 3 (Go comes as a wheel) and cargo for the bindings.
#
# The result is a core module with a component type inside: the host makes the component of it.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
go_and_bindings

wit-bindgen go ../../wit --world bot
go mod edit -replace "go.bytecodealliance.org/pkg=$generator/pkg"
# The runtime reaches into Go's own, which the linker would refuse.
go build -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o survey-go.wasm .
