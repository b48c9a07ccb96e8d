#!/bin/sh
# Builds plugins/{{name}}.wasm: what the compiler makes is a plugin as it is. Zig, which has a C compiler, is installed into
# .venv, unless it is there.
set -eu
cd "$(dirname "$0")"

# is_zig COMMAND...: whether this runs Zig, of a release that takes the flags below.
is_zig() {
    case $("$@" version 2>/dev/null) in 0.17.*) ;; *) false ;; esac
}

if is_zig zig; then
    zig=zig
elif is_zig python3 -m ziglang; then
    zig='python3 -m ziglang'
else
    # Its Python is asked, which finds it also where the project was moved to.
    zig='.venv/bin/python -m ziglang'
    # The file is missing where an installation was cut short; and nothing runs once Python itself was upgraded.
    if [ ! -e .venv/installed ] || ! is_zig $zig; then
        echo 'There is no Zig 0.17 here; one is installed into .venv. Its first build takes a minute.' >&2
        python3 -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check ziglang==0.17.1
        touch .venv/installed
    fi
fi
# The stack is small: the host resets it after every message.
$zig cc -target wasm32-wasi -mexec-model=reactor -std=c17 -Os -s -Wall -Wextra -Werror=return-type \
    -Wl,-z,stack-size=65536 bot.c aviary/aviary.c aviary/bot.c -o plugins/{{name}}.wasm
