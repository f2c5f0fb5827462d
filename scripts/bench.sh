#!/usr/bin/env bash
# Measures the whole pipeline on this machine: the stage times of one 1080p
# camera in real time, then how many frames a second it carries when the
# source is read as fast as results come back (nothing dropped).
#
# usage: scripts/bench.sh [SECONDS]     (default 20, for each of the two)
# Figures of two runs on a shared machine differ by tens of percent: compare
# only runs taken in turn.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

DURATION_S="${1:-20}"
BIN="$FB_TARGET/release"
OUT="$FB_DATA/bench"
mkdir -p "$OUT"
[[ -x "$BIN/framebus" ]] || die "$BIN/framebus is not built" "next: make bench"

# bench NAME CAMERA_LINES
bench() {
    cat >"$OUT/$1.toml" <<TOML
instance = "bench"

[model]
path = "$FB_DATA/models/yolov8n.onnx"

[[camera]]
name = "street"
source = "file:$FB_MEDIA/street1080.mp4"
loop = true
$2
TOML
    "$BIN/framebus" up --config "$OUT/$1.toml" --duration-s "$DURATION_S" ||
        die "framebus up ended with an error" "the configuration: $OUT/$1.toml"
}

say "one 1080p camera at 30 frames/s, newest frame wins, $DURATION_S s"
bench realtime 'pace = "realtime"'
echo
say "the same clip as fast as it goes, every frame delivered, $DURATION_S s"
bench fast $'pace = "fast"\ndelivery = "every-frame"'
