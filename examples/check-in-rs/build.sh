#!/bin/sh
# Builds check-in-rs.wasm. Needs Rust with the target wasm32-wasip2 (`rustup target add wasm32-wasip2`).
set -eu
cd "$(dirname "$0")"
. ../toolchain/install.sh
tools rust

cargo build --quiet --release --locked --target wasm32-wasip2
cp "$CARGO_TARGET_DIR/wasm32-wasip2/release/check_in_rs.wasm" check-in-rs.wasm
