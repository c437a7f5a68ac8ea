#!/usr/bin/env bash
# Creates the parts of a release other than its archives (scripts/package.sh). Used by .github/workflows/release.yml.
#
#   scripts/release.sh version            the version in Cargo.toml
#   scripts/release.sh check TAG          fails unless TAG is v and that version, and CHANGELOG.md has a section for it
#   scripts/release.sh notes [VERSION]    that section
#   scripts/release.sh licences FILE      names and licences of all dependencies (needs cargo-about)
#   scripts/release.sh sbom FILE          a bill of materials as CycloneDX JSON (needs cargo-cyclonedx)
#   scripts/release.sh sums DIR           DIR/SHA256SUMS of all files in DIR
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    echo "release.sh: $*" >&2
    exit 1
}

usage() {
    sed -n '4,9s/^#   //p' "$0"
}

version() {
    sed -n '/^\[package\]/,/^\[[^p]/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml"
}

# The lines between the heading of a version and the next, without blank lines around them.
notes() {
    awk -v heading="## [$1]" '
        index($0, "## ") == 1 { inside = index($0, heading) == 1; next }
        inside && /^\[[^]]*\]: / { next }
        inside { text = text $0 "\n" }
        END { gsub(/^\n+|\n+$/, "", text); if (text == "") exit 1; print text }
    ' "$root/CHANGELOG.md" || fail "CHANGELOG.md has no section '## [$1]' with text in it"
}

needs() {
    command -v "cargo-$1" >/dev/null || fail "cargo-$1 is not installed: cargo install --locked cargo-$1"
}

# The command, and how many arguments there are, the command included.
case ${1:-}/$# in
version/1) version ;;
check/2)
    [[ $2 == "v$(version)" ]] || fail "the tag is $2, but Cargo.toml has version $(version)"
    notes "$(version)" >/dev/null
    ;;
notes/1 | notes/2) notes "${2:-$(version)}" ;;
licences/2)
    needs about
    cd "$root"
    cargo about generate --locked --fail --config scripts/licences.toml scripts/licences.hbs >"$2"
    ;;
sbom/2)
    needs cyclonedx
    cd "$root"
    cargo cyclonedx --quiet --format json --spec-version 1.5 --target all --no-build-deps --override-filename oaif-sbom
    mv oaif-sbom.json "$2"
    ;;
sums/2)
    cd "$2"
    rm -f SHA256SUMS
    sums=$(sha256sum -- *)
    echo "$sums" >SHA256SUMS
    ;;
-h/* | --help/*) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
