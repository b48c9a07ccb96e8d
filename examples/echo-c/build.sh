#!/bin/sh
# Builds echo-c.wasm. Needs Python 3 (Zig, which is a C compiler too, comes as a wheel) and cargo for the bindings.
#
# The result is a core module with a component type inside: the host makes the component of it.
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
c_and_bindings

wit-bindgen c ../../wit --world bot --out-dir gen
# A large stack would be memory that the host resets after every message.
python-zig cc -target wasm32-wasi -mexec-model=reactor -Os -s -Wall -Wextra -Wl,-z,stack-size=65536 \
    echo.c gen/bot.c gen/bot_component_type.o -o echo-c.wasm
