#!/usr/bin/env bash
# Online alignment in small: 20 steps of 16 prompts, two samples of 32 tokens each, into ./demo-run.
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}

run=demo-run
shared=../shared
if [[ -d $shared/models/stories260K && -d $shared/models/TinyStories-656K ]]; then
    echo "A story teller of 260 thousand parameters learns from the taste of one of 656 thousand."
    model=$shared/models/stories260K
    prompts=$shared/data/tinystories_prompts.jsonl
    prompt="Once upon a time"
    judge=(--judge likelihood --judge-model "$shared/models/TinyStories-656K")
else
    echo "$shared is absent: a model of random weights learns to be brief, by a rule."
    model=tests/fixtures/tiny
    prompts=examples/data/prompts.jsonl
    prompt="once there was a small fox"
    judge=(--judge rule --judge-rule shorter)
fi

cargo run --release --quiet -- align --model "$model" --dataset "$prompts" "${judge[@]}" \
    --per-device-train-batch-size 16 --num-samples 2 --max-new-tokens 32 --max-steps 20 \
    --learning-rate 2e-4 --output-dir "$run" --overwrite-output-dir

cat <<END

What happened:
    $run/metrics.jsonl   loss, rewards, margins, the judge's verdicts, timings: a line for each step
    $run/pairs.jsonl     every pair of responses with its verdict
    $run/model           the aligned model, which transformers loads too
Try it:
    cargo run --release -- generate --model $run/model --prompt "$prompt"
    cargo run --release -- generate --model $model --prompt "$prompt"
END
