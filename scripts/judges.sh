#!/usr/bin/env bash
# Evaluates the judges in ./models with `oaif judge` on the small world's 2,000 held-out pairs, for each instruction;
# scripts/agreement.py summarises the results. WORLD, MODELS, ONLY as in models.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
world=${WORLD:-target/world}
models=${MODELS:-models}
verdicts=$world/verdicts
mkdir -p "$verdicts"

for model in "$models"/judge-* "$models"/prompted-*; do
    name=$(basename "$model")
    [[ -f $model/config.json ]] || continue
    [[ -z ${ONLY:-} || " $ONLY " == *" $name "* ]] || continue
    case $name in
    judge-*) judge=(--judge likelihood --judge-template "$world/likelihood.txt") ;;
    prompted-*) judge=(--judge llm --judge-template "$world/prompted.txt") ;;
    esac
    for instruction in "accurate" "accurate and short" "accurate and very short" "accurate and cheerful"; do
        target/release/oaif judge "${judge[@]}" --judge-model "$model" --judge-instruction "$instruction" \
            --input "$world/pairs.jsonl" --output "$verdicts/$name.${instruction// /-}.jsonl" >/dev/null
    done
done
scripts/agreement.py "$world/pairs.jsonl" "$verdicts"
