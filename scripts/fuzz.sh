#!/usr/bin/env bash
# Runs each fuzz target for some minutes: scripts/fuzz.sh MINUTES [TARGET...]
# What it finds lies in fuzz/artifacts/TARGET; fuzz/corpus keeps what reached new code.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT"

minutes="${1:-5}"
shift || true
targets=("$@")
[[ ${#targets[@]} != 0 ]] || targets=(config headers ledger onnx url)
[[ "$minutes" =~ ^[1-9][0-9]*$ ]] || die "MINUTES must be a whole number above 0, not '$minutes'"
cargo fuzz --version >/dev/null 2>&1 ||
    die "cargo-fuzz is not installed" "next: make tools"

# libFuzzer's coverage needs a compiler flag that only nightly compilers take without
# this. No sanitiser: unsafe code is in few places, and none of them is reached here.
export RUSTC_BOOTSTRAP=1
failed=()
for target in "${targets[@]}"; do
    say "fuzzing $target for $minutes min"
    cargo run --quiet -p framebus-tests --example fuzz_seeds -- "$target" "fuzz/corpus/$target"
    # One input may take 10 s and 2 GiB; more is a finding too.
    cargo fuzz run --sanitizer none "$target" -- \
        -max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 ||
        failed+=("$target")
done
[[ ${#failed[@]} == 0 ]] || die "findings: ${failed[*]}" "the inputs are in fuzz/artifacts"
ok "no findings"
