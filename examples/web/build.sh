#!/usr/bin/env bash
# build.sh [FOLDER]: the page as static files, in FOLDER (dist beside this script by default).
#
# It needs the target wasm32-unknown-unknown (`rustup target add wasm32-unknown-unknown`). The glue between page and module is
# made by `bindgen/`, which is of the very version of wasm-bindgen that Cargo.lock names.
set -euo pipefail
cd "$(dirname "$0")"
site=${1:-dist}
cargo build --release --locked
cargo run --quiet --release --locked --manifest-path bindgen/Cargo.toml --target "$(rustc -vV | sed -n 's/^host: //p')" \
    -- target/wasm32-unknown-unknown/release/oaif_web.wasm "$site"
mkdir -p "$site/models/policy" "$site/models/judge"
cp page/* "$site"
cp ../../models/policy/* "$site/models/policy"
cp ../../models/judge-large/* "$site/models/judge"
cp ../../models/policy/tokenizer*.json "$site/models/judge"
echo "$site: serve it with any server of static files, such as python3 -m http.server -d $site"
