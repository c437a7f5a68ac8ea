#!/usr/bin/env bash
# Rebuilds the small world's policy and judges from its generator, into ./models. An interrupted run is resumed.
#
# To shorten it, or to use other folders:
#   WORLD=target/world RUNS=target/world/runs MODELS=models folders of the rows, the runs and the finished models
#   STEPS=50                                    this many steps per training, with a schedule of that length
#   ONLY="policy judge-small"                   only these models
set -euo pipefail
cd "$(dirname "$0")/.."
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
world=${WORLD:-target/world}
runs=${RUNS:-$world/runs}
models=${MODELS:-models}

cargo build --release --quiet --bin oaif --example small_world
[[ -f $world/recipes.tsv ]] || target/release/examples/small_world "$world"

while IFS=$'\t' read -r name rows from steps rate batch; do
    [[ -z ${ONLY:-} || " $ONLY " == *" $name "* ]] || continue
    run=$runs/$name
    steps=${STEPS:-$steps}
    start=$world/$name
    [[ $from == - ]] || start=$runs/$from/model
    again=(--overwrite-output-dir)
    [[ -d $run/checkpoints ]] && again=(--resume-from-checkpoint last)
    echo "== $name: $steps steps"
    target/release/oaif sft --model "$start" "${again[@]}" --dataset "$world/$rows" --output-dir "$run" --no-shuffle \
        --per-device-train-batch-size "$batch" --max-steps "$steps" \
        --learning-rate "$rate" --lr-scheduler-type cosine --warmup-steps 100 --save-steps 100 --save-total-limit 1
    # A marked model is only a starting point for others.
    [[ $name == marked-* ]] || target/release/oaif export --model "$run/model" --output "$models/$name" --dtype f16
done <"$world/recipes.tsv"
