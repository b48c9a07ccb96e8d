#!/bin/sh
# Builds plugins/{{name}}.wasm: what the compiler makes is a plugin as it is.
set -eu
cd "$(dirname "$0")"

if command -v zig >/dev/null; then
    cc='zig cc'
elif python3 -c 'import ziglang' 2>/dev/null; then
    cc='python3 -m ziglang cc'
else
    echo 'there is no Zig here; `pip install ziglang==0.17.1` brings one' >&2
    exit 1
fi
# The stack is small: the host resets it after every message.
$cc -target wasm32-wasi -mexec-model=reactor -std=c17 -Os -s -Wall -Wextra -Wl,-z,stack-size=65536 \
    bot.c aviary/aviary.c aviary/bot.c -o plugins/{{name}}.wasm
