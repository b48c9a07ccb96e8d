#!/bin/sh
# Builds echo-c.wasm. Needs Python 3.10 or newer (Zig, which is a C compiler too, comes as a wheel), and `aviary`.
#
# The result is a core module: the host makes the component of it.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
project c bot.c
