#!/bin/sh
# Builds plugins/{{name}}.wasm. What requirements.txt names is installed into .venv, and again when that changed; unless it is
# componentize-py alone, and on the path.
#
# The plugin contains Python itself: WASI stays in, so that time, random and print work.
set -eu
cd "$(dirname "$0")"

componentize_py() { componentize-py "$@"; }
if [ "$(componentize_py --version 2>/dev/null | sed 's/ /==/')" != "$(cat requirements.txt)" ]; then
    # Its Python is asked, which finds it also where the project was moved to.
    componentize_py() { .venv/bin/python -c 'from componentize_py import script; script()' "$@"; }
    # What is installed does not run any more once Python itself was upgraded.
    if ! cmp -s requirements.txt .venv/installed || ! componentize_py --version >/dev/null 2>&1; then
        echo 'What requirements.txt names is installed into .venv.' >&2
        python3 -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
        cp requirements.txt .venv/installed
    fi
    # It looks for packages in the environment that is active, which may be another.
    export VIRTUAL_ENV="$PWD/.venv"
fi
componentize_py --quiet --wit-path wit --world bot componentize main --output plugins/{{name}}.wasm
