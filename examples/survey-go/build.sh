#!/bin/sh
# Builds survey-go.wasm. Needs Python 3.10 or newer (Go comes as a wheel), and `aviary`.
#
# The result is a core module: the host makes the component of it.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
project go bot.go store.go survey.go
