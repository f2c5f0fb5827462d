#!/usr/bin/env bash
# Builds the Debian package of this machine's architecture: target/debian/framebus_*.deb.
#
# usage: scripts/deb.sh [--version VERSION] [--no-build]
#   --version VERSION   another Debian version than that of Cargo.toml
#   --no-build          pack the programs that lie in target/release
#
# arm64: the same command on an arm64 machine or in an arm64 container (GStreamer's
# libraries of that architecture are linked, which makes cross-building no easier).
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT"

CARGO_DEB_VERSION=3.8.0
CARGO_DEB="$FB_DATA/tools/bin/cargo-deb"

version="$(cargo metadata --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "framebus"))')-1"
build=1
while [[ $# != 0 ]]; do
    case "$1" in
        --version) version="${2:?--version needs a value}"; shift ;;
        --no-build) build=0 ;;
        *) die "unknown argument '$1'" "usage: scripts/deb.sh [--version VERSION] [--no-build]" ;;
    esac
    shift
done
command -v dpkg-shlibdeps >/dev/null ||
    die "dpkg-shlibdeps is missing" "next: apt-get install dpkg-dev"

if [[ "$("$CARGO_DEB" --version 2>/dev/null)" != *"$CARGO_DEB_VERSION"* ]]; then
    say "building cargo-deb $CARGO_DEB_VERSION (two minutes, once) into .framebus/tools"
    cargo install --locked --quiet --no-default-features --root "$FB_DATA/tools" \
        --version "$CARGO_DEB_VERSION" cargo-deb
fi
[[ $build == 0 ]] || cargo build --release --workspace --bins

# ---- what is generated -------------------------------------------------------
framebus="$FB_TARGET/release/framebus"
out="$FB_DATA/deb"
rm -rf "$out"
mkdir -p "$out/man1"
"$framebus" man "$out/man1"
cp deploy/debian/framebus-capture.1 "$out/man1/"
for page in framebus-infer framebus-sink; do
    echo ".so man1/framebus-capture.1" >"$out/man1/$page.1"
done
"$framebus" completions bash >"$out/framebus.bash"
"$framebus" completions zsh >"$out/_framebus"
"$framebus" completions fish >"$out/framebus.fish"
{
    echo "Libraries in the Rust language that the programs contain, each with its licence."
    echo "Their texts: https://crates.io/crates/NAME/VERSION"
    echo
    cargo tree --workspace --edges normal --prefix none --format '{p} | {l}' |
        sed 's/ (.*)//' | grep -v '^framebus' | sort -u
} >"$out/third-party.txt"
gzip -9nc CHANGELOG.md >"$out/changelog.gz"
cat >"$out/changelog.Debian" <<EOF
framebus ($version) unstable; urgency=medium

  * What changed is in changelog.gz.

 -- The framebus authors <framebus@users.noreply.github.com>  $(date -R --date="@${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}")
EOF

"$CARGO_DEB" --quiet --no-build --strip -p framebus --deb-version "$version" --output "$FB_TARGET/debian/" ||
    die "cargo-deb failed" "its words are above"
deb="$FB_TARGET/debian/framebus_${version}_$(dpkg --print-architecture).deb"
if command -v lintian >/dev/null; then
    say "lintian"
    # --allow-root: it only reads the package.
    lintian --allow-root --fail-on error,warning "$deb"
else
    warn "SKIPPED lintian: not installed (apt-get install lintian)"
fi
ok "$(realpath --relative-to="$PWD" "$deb") ($(du -h "$deb" | cut -f1))"
