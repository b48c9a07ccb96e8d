#!/bin/sh
# Builds notebook-py.wasm. Needs Python 3.10 or newer, and `aviary`.
#
# The component contains CPython itself, which takes the host ten seconds and more to compile, once.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
project python bot.py
