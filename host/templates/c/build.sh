#!/bin/sh
# Builds plugins/{{name}}.wasm: what the compiler makes is a plugin as it is. Zig, which has a C compiler, is installed into
# .venv, unless it is there.
set -eu
cd "$(dirname "$0")"

if command -v zig >/dev/null; then
    zig=zig
elif python3 -c 'import ziglang' 2>/dev/null; then
    zig='python3 -m ziglang'
else
    zig=.venv/bin/python-zig
    if [ ! -x $zig ]; then
        echo 'There is no Zig here; one is installed into .venv. Its first build takes a minute.' >&2
        python3 -m venv .venv
        .venv/bin/pip install --quiet --disable-pip-version-check ziglang==0.17.1
    fi
fi
# The stack is small: the host resets it after every message.
$zig cc -target wasm32-wasi -mexec-model=reactor -std=c17 -Os -s -Wall -Wextra -Wl,-z,stack-size=65536 \
    bot.c aviary/aviary.c aviary/bot.c -o plugins/{{name}}.wasm
