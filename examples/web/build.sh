#!/usr/bin/env bash
# build.sh [--skip-without-target] [FOLDER]: the page as static files, in FOLDER (`dist` beside this script by default).
#
# It needs Rust's target wasm32-unknown-unknown. The glue between page and module is made by `bindgen/`, which is of the very
# version of wasm-bindgen that Cargo.lock names.
set -euo pipefail
skip=no
if [[ ${1:-} == --skip-without-target ]]; then skip=yes && shift; fi
site=$(realpath -m "${1:-$(dirname "$0")/dist}")
cd "$(dirname "$0")"
if ! compgen -G "$(rustc --print target-libdir --target wasm32-unknown-unknown)/libstd-*" >/dev/null; then
    echo "SKIPPED: Rust has no target wasm32-unknown-unknown here: rustup target add wasm32-unknown-unknown" >&2
    [[ $skip == yes ]] && exit 0 || exit 1
fi
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --locked
cargo run --quiet --release --locked --manifest-path bindgen/Cargo.toml --target "$(rustc -vV | sed -n 's/^host: //p')" \
    -- "$target/wasm32-unknown-unknown/release/oaif_web.wasm" "$site"
mkdir -p "$site/models/policy" "$site/models/judge"
cp page/* "$site"
cp ../../models/policy/* "$site/models/policy"
cp ../../models/judge-large/* "$site/models/judge"
echo "$site: serve it with any server of static files, such as python3 -m http.server -d $site"
