#!/usr/bin/env bash
# framebus beside what people use today, on this machine: the usual OpenCV loop
# with OpenVINO and with ONNX Runtime on one clip and as four cameras, and
# OpenVINO's own benchmark_app against `framebus bench engine`.
#
# usage: scripts/peers/compare.sh [clip|cameras|engine|all] [ROUNDS]   (default: all 3)
# Needs `make build` and `make setup`; Python packages go to .framebus/peers
# (about 700 MB). The results are also written to .framebus/peers/results.json.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"

WHAT="${1:-all}"
ROUNDS="${2:-3}"
HERE="$FB_ROOT/scripts/peers"
OUT="$FB_DATA/peers"
FRAMEBUS="$FB_TARGET/release/framebus"
MODEL="$FB_DATA/models/yolov8n.onnx"
CLIP="$FB_MEDIA/street1080.mp4"
# The same pictures at 15 frames/s: nobody then decodes frames only to drop them.
CAMERA_CLIP="$OUT/street1080p15.mp4"

[[ -x "$FRAMEBUS" ]] || die "$FRAMEBUS is not built" "next: make build"
[[ -f "$MODEL" && -f "$CLIP" ]] || die "the model or the footage is missing" "next: make setup"

export PYTHONDONTWRITEBYTECODE=1
mkdir -p "$OUT"
if ! cmp -s "$HERE/requirements.txt" "$OUT/installed.txt"; then
    say "installing OpenCV, OpenVINO and ONNX Runtime for Python into .framebus/peers/venv"
    python3 -m venv "$OUT/venv"
    "$OUT/venv/bin/pip" --disable-pip-version-check -q install -r "$HERE/requirements.txt"
    cp "$HERE/requirements.txt" "$OUT/installed.txt"
fi

if [[ ! -f "$CAMERA_CLIP" || "$CLIP" -nt "$CAMERA_CLIP" ]]; then
    say "making a clip of 15 frames/s"
    gst-launch-1.0 -q filesrc location="$CLIP" ! qtdemux ! h264parse ! avdec_h264 ! videoconvert ! \
        video/x-raw,format=I420 ! fdsink fd=1 |
        gst-launch-1.0 -q fdsrc fd=0 ! rawvideoparse format=i420 width=1920 height=1080 framerate=15/1 ! \
            x264enc threads=1 speed-preset=veryfast bitrate=3000 bframes=0 key-int-max=15 ! \
            video/x-h264,profile=main ! h264parse ! mp4mux faststart=true ! filesink location="$CAMERA_CLIP.part"
    mv "$CAMERA_CLIP.part" "$CAMERA_CLIP"
fi

# benchmark_app needs the model with its head cut off as a file; where this
# framebus cannot give it, the model as exported is compared alone.
PREPARED=()
if "$FRAMEBUS" models prepare "$MODEL" --output "$OUT/yolov8n-cut.onnx" >/dev/null 2>&1; then
    PREPARED=(--prepared "$OUT/yolov8n-cut.onnx")
fi

"$OUT/venv/bin/python" "$HERE/compare.py" "$WHAT" --framebus "$FRAMEBUS" --model "$MODEL" --clip "$CLIP" \
    --camera-clip "$CAMERA_CLIP" --rounds "$ROUNDS" --json "$OUT/results.json" "${PREPARED[@]}"
