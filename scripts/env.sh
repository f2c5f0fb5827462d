# shellcheck shell=bash disable=SC2034
# (SC2034: the variables are for those who source this file.)
#
# Sourced by the Makefile's recipes and by every script here: the project's
# folders, the pinned versions, friendly output, and where cargo is.

FB_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
FB_DATA="$FB_ROOT/.framebus"
FB_MEDIA="$FB_DATA/media"
FB_TARGET="${CARGO_TARGET_DIR:-$FB_ROOT/target}"
# cargo resolves a relative CARGO_TARGET_DIR against its own current folder,
# and every script runs cargo from the project's folder.
case "$FB_TARGET" in /*) ;; *) FB_TARGET="$FB_ROOT/$FB_TARGET" ;; esac

# The oldest compiler that builds the workspace, and the one it is pinned to.
FB_RUST_MIN="$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$FB_ROOT/Cargo.toml")"
FB_RUST_PIN="$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$FB_ROOT/rust-toolchain.toml")"

# ---- output ----------------------------------------------------------------
if [[ -t 1 && -z "${NO_COLOR:-}" && "${TERM:-dumb}" != dumb ]]; then
    FB_BOLD=$'\e[1m' FB_GREEN=$'\e[32m' FB_YELLOW=$'\e[33m' FB_RED=$'\e[31m' FB_OFF=$'\e[0m'
else
    FB_BOLD='' FB_GREEN='' FB_YELLOW='' FB_RED='' FB_OFF=''
fi
say() { printf '%s==>%s %s\n' "$FB_BOLD" "$FB_OFF" "$*"; }
ok() { printf '%s  ✓%s %s\n' "$FB_GREEN" "$FB_OFF" "$*"; }
warn() { printf '%s  !%s %s\n' "$FB_YELLOW" "$FB_OFF" "$*" >&2; }
die() {
    printf '%serror:%s %s\n' "$FB_RED" "$FB_OFF" "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

# ---- cargo -----------------------------------------------------------------
# HOME may be an empty folder (a service account, a clean-room build) although
# the account's own home has a toolchain: rustup then knows of none. What the
# user set in CARGO_HOME and RUSTUP_HOME always wins.
fb_find_cargo() {
    local account_home home
    account_home="$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)" || true
    for home in "${HOME:-}" "$account_home"; do
        [[ -n "$home" ]] || continue
        if [[ -z "${RUSTUP_HOME:-}" ]] && compgen -G "$home/.rustup/toolchains/*" >/dev/null; then
            export RUSTUP_HOME="$home/.rustup"
        fi
        if [[ -x "$home/.cargo/bin/cargo" && ":$PATH:" != *":$home/.cargo/bin:"* ]]; then
            # Before /usr/bin: a distribution's cargo is older than the pin.
            export PATH="$home/.cargo/bin:$PATH"
        fi
    done
    if [[ -n "${CARGO_HOME:-}" && -x "$CARGO_HOME/bin/cargo" && ":$PATH:" != *":$CARGO_HOME/bin:"* ]]; then
        export PATH="$CARGO_HOME/bin:$PATH"
    fi
}

# The version of the cargo that this folder gets, or nothing.
fb_cargo_version() { (cd "$FB_ROOT" && cargo --version 2>/dev/null) | awk '{print $2}'; }

# True when cargo runs in this folder and is new enough.
fb_cargo_ok() {
    local have
    have="$(fb_cargo_version)"
    [[ -n "$have" && "$(printf '%s\n' "$FB_RUST_MIN" "${have%%-*}" | sort -V | head -n 1)" == "$FB_RUST_MIN" ]]
}

# True when `cargo nextest` can run here.
fb_have_nextest() { (cd "$FB_ROOT" && cargo nextest --version) >/dev/null 2>&1; }

fb_find_cargo
