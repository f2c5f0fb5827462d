#!/usr/bin/env bash
# Builds everything in the dev profile, runs every test, and then looks for
# what the tests may have left behind. Arguments go to the test runner:
#   scripts/test.sh -E 'package(framebus-vision)'
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT"

# The server that the triton backend is tested with, the library that engines are built
# with, the compiler that the committed PTX is compared with, the Python client's
# dependencies, the broker of the MQTT sink, and a browser for the page.
scripts/setup.sh --quiet --triton --tensorrt-rtx --kernels --python-client --mqtt --browser

# A test whose model, footage or library is missing fails instead of skipping:
# the set-up has just put them all in place.
export FRAMEBUS_REQUIRE_ASSETS=1

snapshot="$(mktemp)"
trap 'rm -f "$snapshot"' EXIT
scripts/leftovers.sh snapshot "$snapshot"

# Whole-system tests start the real programs, which lie beside their own. Libraries too: what
# programs in C link, and what stands in the place of a GPU, its driver and TensorRT. All at
# once: of one package alone, cargo would build its dependencies with other features.
say "building every program, library and example"
cargo build --workspace --lib --bins --examples

status=0
scripts/kernels.sh --check || status=1
if fb_have_nextest; then
    say "running the tests with cargo-nextest"
    cargo nextest run --workspace "$@" || status=$?
else
    warn "cargo-nextest is not installed: 'cargo test' gives no retries and less protection against hangs"
    # 40 minutes: the whole suite on two cores, doubled.
    timeout --kill-after=30 2400 cargo test --workspace --exclude framebus-tests --no-fail-fast "$@" || status=$?
    timeout --kill-after=30 2400 cargo test -p framebus-tests --no-fail-fast "$@" -- --test-threads=1 || status=$?
fi

scripts/leftovers.sh check "$snapshot" || status=1
exit "$status"
