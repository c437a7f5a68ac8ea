#!/usr/bin/env bash
# Makes sure that the cargo feature `mpi` can be built and run: on Debian and Ubuntu it installs Open MPI and libclang,
# which the bindings need. Exits with 3 if they are missing and cannot be installed here.
set -euo pipefail

has_libclang() {
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null
}

if command -v mpicc >/dev/null && command -v mpirun >/dev/null && has_libclang; then
    exit 0
fi
as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi
}
install() {
    as_root apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends \
            libopenmpi-dev openmpi-bin libclang-dev >/dev/null
}
if ! command -v apt-get >/dev/null || ! install; then
    echo "MPI is not installed, and installing it failed: install mpicc, mpirun and libclang; on Debian and Ubuntu:" >&2
    echo "    apt-get install libopenmpi-dev openmpi-bin libclang-dev" >&2
    exit 3
fi
