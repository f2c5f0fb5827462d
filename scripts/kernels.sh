#!/usr/bin/env bash
# Compiles the CUDA kernels to the PTX that is committed beside them. Needs no GPU
# and no toolkit: NVRTC comes from PyPI (scripts/setup.sh --kernels).
#
# usage: scripts/kernels.sh [--check]
#   --check     change nothing; fail when the committed PTX is not what the
#               committed source compiles to
#
# The oldest target that is served (sm_70): every newer GPU takes its PTX. What a
# newer architecture alone would refuse is found by compiling for some of them, too.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

CHECK=0
for arg in "$@"; do
    case "$arg" in
        --check) CHECK=1 ;;
        *) die "unknown argument '$arg'" "usage: scripts/kernels.sh [--check]" ;;
    esac
done

FOLDER="$FB_ROOT/crates/framebus-cuda/kernels"
PTX="$FOLDER/framebus.ptx"
NVRTC="$FB_DATA/nvrtc/nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2"

if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
    [[ $CHECK == 1 ]] || die "NVRTC is set up on Linux on x86_64 only, this is $(uname -sm)"
    warn "SKIPPED check of the kernels' PTX: NVRTC is set up on Linux on x86_64 only, this is $(uname -sm)"
    exit 0
fi
[[ -f "$NVRTC" ]] || "$FB_ROOT/scripts/setup.sh" --quiet --kernels

made="$(mktemp)"
trap 'rm -f "$made"' EXIT
python3 "$FB_ROOT/scripts/kernels.py" "$NVRTC" "$FOLDER" framebus.cu \
    compute_70 compute_72 compute_75 compute_87 compute_90 >"$made"

if cmp -s "$made" "$PTX"; then
    ok "kernels: framebus.ptx is what framebus.cu compiles to"
elif [[ $CHECK == 1 ]]; then
    diff -u "$PTX" "$made" | head -n 20 >&2 || true
    die "crates/framebus-cuda/kernels/framebus.ptx is not what framebus.cu compiles to" \
        "next: scripts/kernels.sh, and commit the file"
else
    cp "$made" "$PTX"
    ok "kernels: wrote $(wc -l <"$PTX") lines to crates/framebus-cuda/kernels/framebus.ptx"
fi
