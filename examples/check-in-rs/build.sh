#!/bin/sh
# Builds check-in-rs.wasm. Needs Rust with the target wasm32-wasip2 (`rustup target add wasm32-wasip2`).
set -eu
cd "$(dirname "$0")"

cargo build --release --locked --target wasm32-wasip2 --target-dir target
cp target/wasm32-wasip2/release/check_in_rs.wasm check-in-rs.wasm
