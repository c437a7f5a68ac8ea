#!/usr/bin/env bash
# Makes sure that a Linux machine has a Vulkan driver: on Debian and Ubuntu it installs the loader and Mesa's drivers,
# which include one for CPUs (lavapipe). macOS and Windows need nothing.
set -euo pipefail

[[ $(uname -s) == Linux ]] || exit 0

has_loader() {
    # ldconfig may not be in an ordinary user's PATH.
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'
}

has_driver() {
    [[ -n ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-} ]] && return
    local data=${XDG_DATA_HOME:-${HOME:-}/.local/share}
    compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null ||
        compgen -G '/usr/local/share/vulkan/icd.d/*.json' >/dev/null ||
        compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null ||
        compgen -G "$data/vulkan/icd.d/*.json" >/dev/null
}

give_up() {
    echo "No Vulkan driver is installed, and $1. Install the Vulkan loader (libvulkan.so.1) and a driver" >&2
    echo "for your GPU, or Mesa's lavapipe if you have no GPU; on Debian and Ubuntu:" >&2
    echo "    apt-get install libvulkan1 mesa-vulkan-drivers" >&2
    exit 1
}

if has_loader && has_driver; then
    exit 0
fi

command -v apt-get >/dev/null || give_up "it cannot be installed: there is no apt-get"
as_root=()
if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || give_up "only root can install it (there is no sudo)"
    as_root=(sudo)
fi
echo "No Vulkan driver is installed: installing libvulkan1 and mesa-vulkan-drivers." >&2
"${as_root[@]}" apt-get update -qq || give_up "apt-get update failed"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    libvulkan1 mesa-vulkan-drivers >/dev/null || give_up "apt-get install failed"
