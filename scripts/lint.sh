#!/usr/bin/env bash
# Formatting, clippy, dependency policy, shell scripts. Runs all of them and
# fails at the end if any failed; what is not installed is SKIPPED, loudly.
set -uo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT" || exit 1

failed=()
step() {
    local name="$1"
    shift
    say "$name"
    if "$@"; then ok "$name"; else failed+=("$name"); fi
}

step "cargo fmt --check" cargo fmt --all -- --check
step "cargo clippy" cargo clippy --workspace --all-targets --quiet -- -D warnings

if cargo deny --version >/dev/null 2>&1; then
    # Advisories come from a database that is fetched over the network; the
    # rest needs nothing but the lock file.
    step "cargo deny: licences, bans, sources" cargo deny --log-level error check licenses bans sources
    say "cargo deny: advisories"
    status=0
    out="$(cargo deny --log-level error check advisories 2>&1)" || status=$?
    if [[ $status == 0 ]]; then
        ok "cargo deny: advisories"
    elif [[ "$out" == *"failed to fetch advisory database"* ]]; then
        warn "SKIPPED cargo deny: advisories (their database cannot be fetched from here)"
    else
        printf '%s\n' "$out"
        failed+=("cargo deny: advisories")
    fi
else
    warn "SKIPPED cargo deny: not installed ('make tools' builds it)"
fi

shell_syntax() {
    local f status=0
    for f in scripts/*.sh scripts/peers/*.sh scripts/triton/*.sh deploy/triton/*.sh .ci/run; do bash -n "$f" || status=1; done
    return "$status"
}
step "shell syntax" shell_syntax
if command -v shellcheck >/dev/null; then
    step "shellcheck" shellcheck -x scripts/*.sh scripts/peers/*.sh scripts/triton/*.sh deploy/triton/*.sh .ci/run \
        deploy/debian/scripts/* deploy/systemd/framebus-generator
else
    warn "SKIPPED shellcheck: not installed (Debian and Ubuntu: apt-get install shellcheck)"
fi

if [[ ${#failed[@]} != 0 ]]; then
    die "lint failed: $(printf '%s; ' "${failed[@]}")" "the findings are above; 'make fmt' repairs formatting"
fi
ok "lint: clean"
