#!/usr/bin/env bash
# Makes the archive of a release: the program with completions, man pages, README, changelog and all licences.
#
#   scripts/package.sh [OPTIONS] TARGET BINARY OUT
#
# writes OUT/oaif-VERSION-TARGET.tar.gz (.zip for Windows) and prints its path. BINARY must run on this machine: it writes its own
# completions and man pages. The same inputs give the same .tar.gz, byte for byte, with the same tar and gzip.
#
#   --licences FILE    the licences of all dependencies, as `scripts/release.sh licences` writes them [default: runs that command]
#   --max-glibc X.Y    fail if BINARY needs a newer glibc
#   --skip-generated   without completions and man pages: for a rehearsal with a binary that cannot write them
set -euo pipefail

fail() {
    echo "package.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '4,11s/^# \{0,1\}//p' "$0"
}

misused() {
    usage >&2
    exit 2
}

licences='' max_glibc='' generated=yes
while [[ ${1:-} == -* ]]; do
    case $1/$# in
    --licences/1 | --max-glibc/1) misused ;;
    --licences/*) licences=$2 && shift ;;
    --max-glibc/*) max_glibc=$2 && shift ;;
    --skip-generated/*) generated=no ;;
    -h/* | --help/*) usage && exit ;;
    *) misused ;;
    esac
    shift
done
[[ $# == 3 ]] || misused
target=$1
binary=$2
root=$(cd "$(dirname "$0")/.." && pwd)

[[ -f $binary ]] || fail "$binary does not exist"
[[ -z $licences || -f $licences ]] || fail "$licences does not exist"
[[ $binary == */* ]] || binary=./$binary

version=$("$root/scripts/release.sh" version)
said=$("$binary" --version | sed -n '1s/^oaif \([^ ]*\).*/\1/p') || fail "$binary does not run on this machine"
[[ ${said%$'\r'} == "$version" ]] || fail "$binary has version $said, Cargo.toml $version"

if [[ -n $max_glibc ]]; then
    needs=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | cut -d _ -f 2 | sort -Vu | tail -n 1)
    [[ $(printf '%s\n' "$needs" "$max_glibc" | sort -V | tail -n 1) == "$max_glibc" ]] ||
        fail "$binary needs glibc $needs, more than $max_glibc: $(objdump -T "$binary" | grep -F "GLIBC_$needs" | awk '{ print $NF }' | paste -sd ' ' -)"
    echo "$binary needs glibc $needs" >&2
fi

mkdir -p "$3"
out=$(cd "$3" && pwd)
name=oaif-$version-$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=$work/$name
mkdir -p "$folder"

program=oaif
[[ $target == *windows* ]] && program=oaif.exe
install -m 755 "$binary" "$folder/$program"
for file in README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT; do
    install -m 644 "$root/$file" "$folder/$file"
done

if [[ -n $licences ]]; then
    install -m 644 "$licences" "$folder/THIRD-PARTY-LICENSES.txt"
else
    "$root/scripts/release.sh" licences "$folder/THIRD-PARTY-LICENSES.txt"
fi

if [[ $generated == yes ]]; then
    mkdir -p "$folder/completions" "$folder/man"
    # Each shell looks for its file under this name.
    for pair in bash:oaif.bash elvish:oaif.elv fish:oaif.fish powershell:_oaif.ps1 zsh:_oaif; do
        file=$folder/completions/${pair#*:}
        "$binary" completions "${pair%%:*}" >"$file" || fail "'oaif completions ${pair%%:*}' failed"
        [[ -s $file ]] || fail "'oaif completions ${pair%%:*}' printed nothing"
    done
    "$binary" man "$folder/man" >/dev/null || fail "'oaif man DIR' failed"
    [[ -s $folder/man/oaif.1 ]] || fail "'oaif man DIR' wrote no oaif.1"
fi

# One date for all files: that of the commit, or 1980-01-02 without a git checkout.
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 315619200)}
if ! stamp=$(TZ=UTC date -d "@$epoch" +%Y%m%d%H%M.%S 2>/dev/null); then
    stamp=$(TZ=UTC date -r "$epoch" +%Y%m%d%H%M.%S)
fi
find "$folder" -exec env TZ=UTC touch -t "$stamp" {} +

cd "$work"
if [[ $target == *windows* ]]; then
    archive=$out/$name.zip
    rm -f "$archive"
    # Windows runners have 7-Zip, other machines Info-ZIP.
    if command -v 7z >/dev/null; then
        TZ=UTC 7z a -bso0 -tzip -mx=9 "$archive" "$name" >&2
    else
        find "$name" -type f | LC_ALL=C sort | TZ=UTC zip -q -9 -X "$archive" -@
    fi
else
    archive=$out/$name.tar.gz
    if tar --version | grep -q 'GNU tar'; then
        owner=(--owner=0 --group=0 --numeric-owner --format=ustar)
    else
        owner=(--uid 0 --gid 0 --numeric-owner --format ustar)
    fi
    # COPYFILE_DISABLE: no metadata files of macOS.
    find "$name" -type f | LC_ALL=C sort | COPYFILE_DISABLE=1 tar -c -f - "${owner[@]}" -T - | gzip -9n >"$archive"
fi
echo "$archive"
