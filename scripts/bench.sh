#!/usr/bin/env bash
# Every benchmark of docs/bench.md on this machine, some minutes in all. Nothing
# else should run meanwhile.
#
# usage: scripts/bench.sh [--json] [SECONDS]     (default 20, for each of them)
#   --json   one JSON object a line, also written to .framebus/bench/results.jsonl
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

JSON=()
if [[ "${1:-}" == --json ]]; then
    JSON=(--json)
    shift
fi
SECONDS_EACH="${1:-20}"
[[ "$SECONDS_EACH" =~ ^[0-9]+$ ]] || die "unknown argument '$SECONDS_EACH'" "usage: scripts/bench.sh [--json] [SECONDS]"
FRAMEBUS="$FB_TARGET/release/framebus"
OUT="$FB_DATA/bench"
[[ -x "$FRAMEBUS" ]] || die "$FRAMEBUS is not built" "next: make bench"
mkdir -p "$OUT"
: >"$OUT/results.jsonl"

# bench TITLE ARGUMENTS
bench() {
    local title="$1"
    shift
    if [[ ${#JSON[@]} -gt 0 ]]; then
        "$FRAMEBUS" bench "$@" --seconds "$SECONDS_EACH" --json | tee -a "$OUT/results.jsonl"
        return
    fi
    say "$title: framebus bench $*"
    "$FRAMEBUS" bench "$@" --seconds "$SECONDS_EACH"
    echo
}

MODEL=(--model "$FB_DATA/models/yolov8n.onnx")
PICTURES=(--pictures "$FB_MEDIA")
bench "the bare engine" engine "${MODEL[@]}"
bench "pixels into the network's input" letterbox
bench "the network's output into boxes" decode
bench "hand-over of a frame" bus
bench "one camera, live" pipeline "${MODEL[@]}" "${PICTURES[@]}"
bench "eight cameras, as much as goes" pipeline "${MODEL[@]}" "${PICTURES[@]}" --cameras 8 --fps max
bench "one fast camera beside seven slow ones" pipeline "${MODEL[@]}" "${PICTURES[@]}" --fps 120,10x7 --without-first
bench "a real clip, decoding included" clip "$FB_MEDIA/street1080.mp4" "${MODEL[@]}"
bench "how many cameras fit" pipeline "${MODEL[@]}" "${PICTURES[@]}" --cameras auto --latency 100ms --fps 15
bench "one and a half times what the engine can do" pipeline "${MODEL[@]}" "${PICTURES[@]}" --cameras 8 --fps 150% --max-age-ms 500
