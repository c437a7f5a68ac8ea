#!/usr/bin/env bash
# Prints a Markdown table of the largest batches that fit into GPUs of 4 to 16 GB, from `oaif --dry-run` on the shapes
# in benches/configs. No GPU is needed. LoRA of rank 16 on every projection, AdamW, buffers of up to 2 GiB; a batch fits
# if its peak leaves a tenth of the GPU's memory to the driver and the desktop.
#   scripts/what-fits.sh [sft|dpo|align [MODEL …]]
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-dpo}
models=("${@:2}")
[[ ${#models[@]} -gt 0 ]] || models=(Qwen2.5-0.5B Llama-3.2-1B SmolLM2-1.7B Llama-3.2-3B)
oaif=${OAIF:-target/release/oaif}
cards=(4 6 8 12 16) # GB, as they are sold: GiB
most=64

case $kind in
sft)
    lengths=(--max-length 1024)
    rows="rows of 1,024 tokens" ;;
dpo)
    lengths=(--max-prompt-length 512 --max-length 1024)
    rows="pairs of a prompt of 512 tokens and two responses of 512" ;;
align)
    lengths=(--max-prompt-length 512 --max-new-tokens 512 --judge rule --judge-rule longer)
    rows="prompts of 512 tokens with two responses of 512; a judge model needs additional memory" ;;
*)
    echo "what-fits.sh: $kind is not one of sft, dpo, align" >&2
    exit 2 ;;
esac

# Peak bytes of a dry run with these flags; "none" if a tensor is above the limits.
peak() {
    local report
    if report=$("$oaif" "$kind" --dry-run "${lengths[@]}" --lora-r 16 --max-storage-buffer-binding-size 2GiB \
        --max-buffer-size 2GiB "$@" 2>&1); then
        sed -n 's/.*"peak": \([0-9]*\).*/\1/p' <<<"$report"
    elif [[ $report == *"the GPU allows"* ]]; then
        echo none
    else
        echo "$report" >&2
        return 1
    fi
}

echo "Largest \`--per-device-train-batch-size\` of \`oaif $kind\`, of at most $most ($rows):"
echo
echo "| model | frozen weights | checkpointing | needs for 1 |$(printf ' %s GB |' "${cards[@]}")"
echo "|---|---|---|---:|$(printf -- '---:|%.0s' "${cards[@]}")"
for model in "${models[@]}"; do
    for dtype in float32 bfloat16; do
        for checkpointing in no yes; do
            flags=(--model "benches/configs/$model" --base-dtype "$dtype")
            [[ $checkpointing == no ]] || flags+=(--gradient-checkpointing)
            first="" fits=()
            for ((batch = 1; batch <= most; batch++)); do
                bytes=$(peak "${flags[@]}" --per-device-train-batch-size $batch)
                [[ $bytes != none ]] || break
                first=${first:-$(awk "BEGIN { printf \"%.1f\", $bytes / 2^30 }")}
                for i in "${!cards[@]}"; do
                    if ((bytes * 10 <= (cards[i] << 30) * 9)); then fits[i]=$batch; fi
                done
                ((bytes <= cards[-1] << 30)) || break
            done
            row="| $model | $dtype | $checkpointing | $first GiB |"
            for i in "${!cards[@]}"; do row+=" ${fits[i]:-–} |"; done
            echo "$row"
        done
    done
done
