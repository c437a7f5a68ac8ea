#!/usr/bin/env bash
# Compiles oaif's kernels with the shader compilers of real GPUs, without a GPU: Mesa's drivers for GPUs of AMD, NVIDIA,
# Apple and Intel compile the kernels that oaif would choose on each, and report registers, spills, code size and more.
#   scripts/gpu-stats.sh [--skip-without-packages] OUT [SHAPE…]
#
# Writes OUT/DEVICE/*.wgsl, OUT/stats.md, and OUT/DEVICE.log. Exits with 1 if a kernel breaks a bound (spills, scratch
# memory, code above 64 KiB, more than 5 s to compile), printing one line each; with 2 if Debian's packages are not
# available (with --skip-without-packages: 0). A SHAPE is a model's name (default: all in gpu-stats/src/shapes.rs) or a
# folder with a config.json.
#
# Unpacks Debian's Mesa with its own C library to a cache folder, from the mirror that this machine's apt uses: the
# system is not changed, and root is not needed. Mesa's mesa-drm-shim replaces the kernel drivers, gpu-stats/i915.c the
# one for Intel. Nothing is executed on these GPUs. Requires Debian on x86-64, cargo, a C compiler, and 100 MB of
# downloads.
#   OAIF_GPU_STATS_CACHE    the folder of the packages (default: ~/.cache/oaif-gpu-stats); delete it to get newer ones
#   OAIF_GPU_STATS_SUITE    Debian's suite (default: sid)
#   OAIF_GPU_STATS_DEVICES  some of the devices below (default: all)
set -euo pipefail

# Name, Vulkan driver, library that replaces the kernel driver, GPU that it emulates if it knows several.
devices=(
    "amd-rdna2-680m   radeon   libamdgpu_noop_drm_shim.so   AMDGPU_GPU_ID=rembrandt"
    "amd-rdna3-780m   radeon   libamdgpu_noop_drm_shim.so   AMDGPU_GPU_ID=phoenix"
    "amd-vega-renoir  radeon   libamdgpu_noop_drm_shim.so   AMDGPU_GPU_ID=renoir"
    "nvidia-ad107     nouveau  libnouveau_noop_drm_shim.so  NOUVEAU_CHIPSET=197"
    "apple-m1         asahi    libasahi_noop_drm_shim.so"
    "intel-adl-gt2    intel    i915.so                      I915_DEVICE=46a6"
)

usage() {
    echo "usage: scripts/gpu-stats.sh [--skip-without-packages] OUT [SHAPE…]" >&2
    exit 2
}

without_packages=2
if [[ ${1:-} == --skip-without-packages ]]; then
    without_packages=0
    shift
fi
[[ $# -ge 1 && $1 != -* ]] || usage

skip() {
    echo "SKIPPED: the kernels were not compiled with the compilers of GPUs: $1"
    exit "$without_packages"
}

[[ $(uname -sm) == "Linux x86_64" ]] || skip "this is $(uname -sm), Linux x86_64 is needed"
project=$(realpath "$(dirname "$0")/..")
mkdir -p "$1"
out=$(realpath "$1") shapes=("${@:2}")
suite=${OAIF_GPU_STATS_SUITE:-sid}
cache=$(realpath -m "${OAIF_GPU_STATS_CACHE:-$HOME/.cache/oaif-gpu-stats}")
root=$cache/$suite lib=$cache/$suite/usr/lib/x86_64-linux-gnu
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The Debian mirror that apt uses here.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null | grep -v '^ *#' |
        grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 || true
}

# Unpacks Mesa's drivers with all their dependencies into $root.
unpack() {
    local url work apt packages deb
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "there is no apt-get or no dpkg-deb"
    [[ -e $keyring ]] || skip "$keyring does not exist: Debian's packages cannot be verified"
    url=$(mirror)
    [[ -n $url ]] || skip "apt has no Debian mirror among its sources"
    echo "Unpacking Mesa's drivers of Debian's $suite in $cache" >&2
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/unpacking.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs,root}
    : >"$work/status"
    echo "deb [signed-by=$keyring] $url $suite main" >"$work/sources.list"
    apt=(apt-get -qq -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o APT::Install-Recommends=false -o APT::Sandbox::User= -o APT::Update::Error-Mode=any -o Debug::NoLocking=1)
    "${apt[@]}" update || skip "apt cannot read Debian's $suite from $url"
    packages=$("${apt[@]}" install -s -y mesa-vulkan-drivers mesa-drm-shim libvulkan1 | awk '/^Inst/ { print $2 }') ||
        skip "Debian's $suite does not have mesa-vulkan-drivers and mesa-drm-shim"
    # The last two packages contain the headers that i915.c needs.
    # shellcheck disable=SC2086
    (cd "$work/debs" && "${apt[@]}" download $packages linux-libc-dev libdrm-dev) || skip "cannot download the packages from $url"
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/root"
    done
    mv "$work/root" "$root"
    rm -rf "$work"
    trap - EXIT
}

# Runs a command on the device $name: with only its driver, and with the C library that the driver was built against.
on_device() {
    env -u OAIF_GPU ${gpu:+"$gpu"} VK_DRIVER_FILES="$out/$name/icd.json" VK_LOADER_LAYERS_DISABLE='*' WGPU_BACKEND=vulkan \
        MESA_SHADER_CACHE_DISABLE=true XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/tmp}" \
        "$lib/ld-linux-x86-64.so.2" --library-path "$lib:$cache" --preload "$shim" "$@"
}

[[ -d $root ]] || unpack
cc -O1 -fPIC -shared -I"$root/usr/include" -I"$root/usr/include/libdrm" -o "$cache/i915.so" "$project/scripts/gpu-stats/i915.c"
cargo build --manifest-path "$project/scripts/gpu-stats/Cargo.toml" --target-dir "$project/target"
program=$project/target/debug/oaif-gpu-stats

names=()
for device in "${devices[@]}"; do
    read -r name driver shim gpu <<<"$device"
    [[ " ${OAIF_GPU_STATS_DEVICES:-$name} " == *" $name "* ]] || continue
    names+=("$name")
    rm -rf "${out:?}/$name"
    mkdir "$out/$name"
    sed "s#\"library_path\": \"[^\"]*\"#\"library_path\": \"$lib/libvulkan_$driver.so\"#" \
        "$root/usr/share/vulkan/icd.d/${driver}_icd.json" >"$out/$name/icd.json"
    { on_device "$program" write "$out/$name" "${shapes[@]}" && on_device "$program" compile "$out/$name"; } \
        &>"$out/$name.log" || echo "$name: $(tail -n 1 "$out/$name.log")" &
done
wait
[[ ${#names[@]} -gt 0 ]] || { echo "OAIF_GPU_STATS_DEVICES contains none of the devices in $0" >&2; exit 2; }
"$program" report "$out" "${names[@]}"
