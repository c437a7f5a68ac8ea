#!/usr/bin/env bash
# Measures oaif on a GPU, in ten minutes and without a network: doctor, kernel tests, tuning, training passes, prefill,
# decoding, a short run, and the same training passes in PyTorch if it is installed.
#
#   OAIF=target/release/oaif MODEL=path/to/small/model scripts/gpu-report.sh [OUT]
#
# Writes report.json, report.md and the output of each step to OUT (default gpu-report), after each step. A step has a
# time limit; if one fails or exceeds it, the report says so and the next step runs. Exits with 1 if a step failed.
#
# Build with the commit in the binary, which then can run outside its checkout:
#   OAIF_COMMIT=$(git rev-parse --short HEAD) cargo build --release
#   cargo test --release --no-run --test kernels     # prints the path for KERNEL_TESTS
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${OUT:-gpu-report}}
oaif=${OAIF:-$here/../target/release/oaif}
kernel_tests=${KERNEL_TESTS:-}       # the binary of tests/kernels.rs; skipped if not set
model=${MODEL:-}                     # a small model's folder, to train; skipped if not set
python=${PYTHON:-python3}
torch_device=${TORCH_DEVICE:-cuda}   # PyTorch is timed if it supports this device
limit=${LIMIT:-570}                  # seconds in total
runs=${RUNS:-5}
small=${SMALL:-smollm2-135m}         # all weights trained
large=${LARGE:-llama-3.2-1b}         # LoRA, and decoding
batches=${BATCHES:-1x128,8x512}
large_batch=${LARGE_BATCH:-1x512}
rank=${RANK:-16}
contexts=${CONTEXTS:-128,1024,4096}
sequences=${SEQUENCES:-1,8}
prompts=${PROMPTS:-128,512,2048}
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp} REQUIRE_GPU=1

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
rm -f "$out"/*.out "$out"/*.err
# Tuning is part of the report, so it starts with an empty cache.
export OAIF_CACHE=$out/cache
rm -rf "$OAIF_CACHE" "$out/run"
if ! command -v "$oaif" >/dev/null; then
    echo "gpu-report.sh: $oaif is not a program: build it with cargo build --release, or set OAIF" >&2
    exit 2
fi
timeout=$(command -v timeout || command -v gtimeout || true)
[[ -n $timeout ]] || echo "gpu-report.sh: timeout(1) is not installed: steps run without a time limit" >&2

steps=() # JSON objects
order=() # names of the steps that printed something
failed=0

text() { # as a JSON string
    local t=${1//\\/\\\\}
    t=${t//\"/\\\"}
    t=${t//[$'\t\r\n']/ }
    printf '"%s"' "$(tr -d '\000-\037' <<<"$t")"
}

note() { # NAME STATUS SECONDS WHY
    steps+=("{\"step\":$(text "$1"),\"status\":$(text "$2"),\"seconds\":$3,\"why\":$(text "$4")}")
    printf '%4ds  %-18s %s%s\n' $SECONDS "$1" "$2" "${4:+: $4}" >&2
    write
}

skip() { note "$1" skipped 0 "$2"; }

# NAME LIMIT COMMAND...
step() {
    local name=$1 most=$2 left=$((limit - SECONDS - 3)) status why started=$SECONDS
    shift 2
    if ((left < 5)); then
        failed=1
        note "$name" failed 0 "no time is left"
        return
    fi
    ((most <= left)) || most=$left
    order+=("$name")
    # In the background, so that this script handles a signal immediately.
    ${timeout:+"$timeout" --kill-after=3 "$most"} "$@" >"$out/$name.out" 2>"$out/$name.err" </dev/null &
    running=$!
    wait "$running"
    status=$?
    running=
    why=$(tail -n 1 "$out/$name.err" | cut -c 1-300)
    case $status in
    0) note "$name" "done" $((SECONDS - started)) "" ;;
    124 | 137) failed=1 && note "$name" failed $((SECONDS - started)) "stopped after $most seconds" ;;
    *) failed=1 && note "$name" failed $((SECONDS - started)) "exit code $status: $why" ;;
    esac
}

# Prints the complete JSON objects of a step's output, one per line, without truncated ones.
rows() { grep -E '^\{.*\}$' "$out/$1.out" 2>/dev/null; }

write() {
    local name
    {
        printf '{"steps":[%s],\n"rows":{' "$(IFS=,; echo "${steps[*]}")"
        local comma=""
        for name in "${order[@]}"; do
            printf '%s\n%s:[%s]' "$comma" "$(text "$name")" "$(rows "$name" | paste -s -d , -)"
            comma=,
        done
        printf '}}\n'
    } >"$out/report.json.new" && mv "$out/report.json.new" "$out/report.json"
    {
        echo "# GPU report"
        echo
        for name in "${order[@]}"; do
            [[ $name == machine* ]] && sed '/^$/d; s/^/    /' "$out/$name.out"
        done
        echo
        for name in "${order[@]}"; do rows "$name"; done | table about
        echo
        echo "| step | status | s | |"
        echo "|---|---|---:|---|"
        printf '%s\n' "${steps[@]}" | table steps
        echo
        for name in "${order[@]}"; do rows "$name"; done | table measurements
        for name in "${order[@]}"; do rows "$name"; done | table comparison
        for name in "${order[@]}"; do rows "$name"; done | table align
    } >"$out/report.md.new" && mv "$out/report.md.new" "$out/report.md"
}

# Converts JSON lines to a Markdown table.
table() {
    awk -v kind="$1" '
    # A member of a flat part of an object, as text.
    function get(key,    at, rest, end) {
        at = index($0, "\"" key "\":")
        if (!at) return ""
        rest = substr($0, at + length(key) + 3)
        if (substr(rest, 1, 1) == "\"") {
            rest = substr(rest, 2)
            if (substr(rest, 1, 1) == "\"") return ""
            end = match(rest, /[^\\]"/)
            return end ? substr(rest, 1, end) : ""
        }
        match(rest, /^[-+0-9.eE]+|^true|^false|^null/)
        return substr(rest, 1, RLENGTH)
    }
    function number(text, form) { return text == "" ? "" : sprintf(form, text) }
    function head(titles, rule) { if (!lines++) { print titles; print rule } }
    kind == "steps" { print "| " get("step") " | " get("status") " | " get("seconds") " | " get("why") " |" }
    kind == "about" && /"gpu":[{]/ && get("date") != "" && !lines++ {
        print "oaif " get("version") " " get("commit") ", " get("date") ", " get("name") " (" get("backend") ", " \
            get("driver") "), tier " get("tier") "; ceilings " number(get("gflops"), "%.0f") " GFLOP/s, " \
            number(get("gigabytes_per_second"), "%.0f") " GB/s, " number(get("launch_us"), "%.1f") " µs a launch, " \
            number(get("submit_us"), "%.0f") " µs a submit"
    }
    kind == "measurements" && /"ceilings_after"/ {
        suite = get("suite")
        sub(/.*"drift_percent":/, "")
        drift[++moved] = sprintf("%s: %+.1f %% multiply-add, %+.1f %% bandwidth", suite, get("gflops"), \
            get("gigabytes_per_second"))
    }
    kind == "measurements" && get("skipped") != "" {
        head_of_measurements()
        print "| " get("suite") " | " get("case") " | " get("model") " | skipped: " get("skipped") " | | | | | | |"
    }
    kind == "measurements" && get("ms") != "" {
        head_of_measurements()
        tokens = get("tokens")
        rate = tokens == "" ? "" : sprintf("%.0f", 1000 * tokens / get("ms"))
        print "| " get("suite") " | " get("case") " | " get("model") (get("weights") == "" ? "" : "; " get("weights")) \
            " | " number(get("ms"), "%.3f") " | " number(get("min_ms"), "%.3f") " | " number(get("max_ms"), "%.3f") \
            " | " rate " | " number(get("gflops"), "%.1f") " | " number(get("gigabytes_per_second"), "%.1f") \
            " | " (get("bound") == "" ? "" : number(get("percent_of_ceiling"), "%.1f %%") " " get("bound")) " |"
    }
    function head_of_measurements() {
        head("| suite | case | model | ms | min | max | tokens/s | GFLOP/s | GB/s | of ceiling |",
            "|---|---|---|---:|---:|---:|---:|---:|---:|---|")
    }
    kind == "comparison" && get("ms") != "" {
        key = get("case") " | " get("model") "; " get("weights")
        if (get("suite") == "passes") { if (!(key in ours)) keys[++count] = key; ours[key] = get("ms") }
        if (get("suite") == "torch eager") eager[key] = get("ms")
        if (get("suite") == "torch compile") compiled[key] = get("ms")
    }
    kind == "align" && get("time/step_ms") != "" {
        head("| step of the run | ms | sampling | judging | reference | update | loss |",
            "|---:|---:|---:|---:|---:|---:|---:|")
        print "| " get("step") " | " number(get("time/step_ms"), "%.0f") " | " number(get("time/sampling_ms"), "%.0f") \
            " | " number(get("time/judging_ms"), "%.0f") " | " number(get("time/reference_ms"), "%.0f") \
            " | " number(get("time/update_ms"), "%.0f") " | " number(get("loss"), "%.4f") " |"
    }
    END {
        for (i = 1; i <= moved; i++) print (i > 1 ? "" : "\nHow the ceilings moved while these were measured:\n\n") "- " drift[i]
        for (i = 1; i <= count; i++) {
            key = keys[i]
            if (!(key in eager) && !(key in compiled)) continue
            head("| case | model | oaif ms | torch eager ms | torch compile ms | oaif / the faster |",
                "|---|---|---:|---:|---:|---:|")
            best = key in eager ? eager[key] : compiled[key]
            if (key in compiled && compiled[key] + 0 < best + 0) best = compiled[key]
            printf "| %s | %.3f | %s | %s | %.2f |\n", key, ours[key], number(eager[key], "%.3f"), \
                number(compiled[key], "%.3f"), ours[key] / best
        }
        if (lines) print ""
    }'
}

bench() { # NAME LIMIT ARGUMENTS...
    step "$1" "$2" "$oaif" bench "${@:3}" --runs "$runs" --json
}

running= # the step's process
interrupted() {
    [[ -z $running ]] || kill "$running"
    note interrupted failed 0 "by a signal"
    exit 130
}
trap interrupted INT TERM

machine() {
    uname -srm
    grep -m 1 'model name' /proc/cpuinfo 2>/dev/null | sed 's/.*: //'
    echo "$(getconf _NPROCESSORS_ONLN 2>/dev/null) processors"
    "$oaif" --version
    command -v nvidia-smi >/dev/null && nvidia-smi \
        --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,memory.used,utilization.gpu \
        --format=csv
    return 0
}
export oaif
export -f machine
step machine 20 bash -c machine

# One small case, so that most of the time is tuning.
step tuning 60 "$oaif" bench kernels --filter residual --runs 1 --json
step doctor 90 "$oaif" doctor --json --kernels
# Joined to one line, which becomes a row.
if [[ -s $out/doctor.out ]]; then
    tr -d '\n' <"$out/doctor.out" >"$out/doctor.line" && echo >>"$out/doctor.line" && mv "$out/doctor.line" "$out/doctor.out"
fi

bench passes 60 passes --shape "$small" --batch "$batches"
bench updates 30 step --shape "$small" --batch "${batches%%,*}" --filter ada
bench lora-f32 60 passes --shape "$large" --batch "$large_batch" --lora-r "$rank" --base-dtype float32
bench lora-f16 60 passes --shape "$large" --batch "$large_batch" --lora-r "$rank" --base-dtype float16
bench lora-q4 60 passes --shape "$large" --batch "$large_batch" --lora-r "$rank" --base-dtype q4
bench decode 60 decode --shape "$large" --base-dtype float16 --decode "$contexts" --sequences "$sequences"
bench prefill 45 prefill --shape "$large" --base-dtype float16 --prefill "$prompts"
bench decode-q4 60 decode --shape "$large" --base-dtype q4 --decode "$contexts" --sequences "$sequences"
bench decode-small 30 decode --shape "$small" --base-dtype float16 --decode "$contexts" --sequences "$sequences"

if [[ -z $model ]]; then
    skip align "MODEL is not set"
elif [[ ! -f $model/config.json ]]; then
    skip align "$model contains no config.json"
else
    for i in 1 2 3 4 5 6 7 8; do echo "{\"prompt\":\"Once upon a time there were $i\"}"; done >"$out/prompts.jsonl"
    step align 60 "$oaif" align --model "$model" --dataset "$out/prompts.jsonl" --output-dir "$out/run" \
        --judge rule --judge-rule longer --lora-r 8 --max-new-tokens 32 --max-steps 3 --save-steps 0
    [[ -f $out/run/metrics.jsonl ]] && cp "$out/run/metrics.jsonl" "$out/align.out"
fi

torch() { # NAME LIMIT ARGUMENTS...
    step "$1" "$2" "$python" "$here/torch_shapes.py" --device "$torch_device" --runs "$runs" "${@:3}"
}
# Importing torch may take long.
left=$((limit - SECONDS - 3)) has=
if ((left >= 10)) && command -v "$python" >/dev/null; then
    has=$(${timeout:+"$timeout" "$((left < 60 ? left : 60))"} "$python" -c \
        'import torch; print("torch", "cuda" if torch.cuda.is_available() else "", "cpu")' 2>/dev/null)
fi
if ((left < 10)); then
    failed=1
    note torch failed 0 "no time is left"
elif [[ $has != torch* ]]; then
    skip torch "$python has no module torch"
elif [[ $torch_device == cuda && $has != *cuda* ]]; then
    skip torch "torch has no CUDA here"
else
    torch torch-eager 60 --model "$small" --batch "$batches" --modes eager
    torch torch-eager-lora 60 --model "$large" --batch "$large_batch" --lora-r "$rank" --modes eager
    torch torch-compile 120 --model "$small" --batch "$batches" --modes compile
    torch torch-compile-lora 90 --model "$large" --batch "$large_batch" --lora-r "$rank" --modes compile
fi

if [[ -n $kernel_tests ]]; then
    step kernel-tests 120 "$kernel_tests"
else
    skip kernel-tests "KERNEL_TESTS is not set"
fi
step machine-after 20 bash -c machine

write
echo "gpu-report.sh: $out/report.md and report.json after $SECONDS s" >&2
exit $failed
