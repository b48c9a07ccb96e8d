#!/bin/sh
# Builds echo-py.wasm. Needs Python 3.10 or newer.
#
# The component contains CPython itself, which takes the host ten seconds and more to compile, once.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
tools python

componentize-py --quiet --wit-path ../../wit --world bot componentize app --output echo-py.wasm
