#!/usr/bin/env bash
# The tracker beside two implementations of ByteTrack that others wrote, on the same
# generated detections, scored by py-motmetrics; also shows that our own figures are
# those of py-motmetrics. The table is that of docs/tracking.md.
#
# usage: scripts/peers/track_compare.sh
# Python packages go to .framebus/peers/track (about 600 MB).
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"

HERE="$FB_ROOT/scripts/peers"
OUT="$FB_DATA/peers/track"
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$OUT"
if ! cmp -s "$HERE/track_requirements.txt" "$OUT/installed.txt"; then
    say "installing supervision, trackforge and motmetrics for Python into .framebus/peers/track/venv"
    python3 -m venv "$OUT/venv"
    "$OUT/venv/bin/pip" --disable-pip-version-check -q install -r "$HERE/track_requirements.txt"
    cp "$HERE/track_requirements.txt" "$OUT/installed.txt"
fi
say "generating scenes"
rm -rf "$OUT/scenes"
(cd "$FB_ROOT" && cargo run --quiet --release -p framebus-vision --example track_eval -- "$OUT/scenes" >"$OUT/own.txt")
"$OUT/venv/bin/python" -W ignore "$HERE/track_compare.py" "$OUT/scenes" "$OUT/own.txt"
