#!/usr/bin/env bash
# `framebus bench triton` against a server of its own, with Triton's own Python client
# taking turns: YOLOv8n as exported at 640x640 and with its head cut off at 384x640, in
# bf16 where the CPU has it and in f32. Some minutes; nothing else should run meanwhile.
#
# usage: scripts/triton/bench.sh [--json] [TURNS]     (default 100, for each of them)
#   --json   one JSON object a line
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"

JSON=()
if [[ "${1:-}" == --json ]]; then
    JSON=(--json)
    shift
fi
TURNS="${1:-100}"
[[ "$TURNS" =~ ^[1-9][0-9]*$ ]] || die "unknown argument '$TURNS'" "usage: scripts/triton/bench.sh [--json] [TURNS]"
FRAMEBUS="$FB_TARGET/release/framebus"
MODEL="$FB_DATA/models/yolov8n.onnx"
PYTHON="$FB_DATA/triton/venv/bin/python"
# Its model starts within this, s.
START=60

"$FB_ROOT/scripts/setup.sh" --quiet --triton >&2
[[ -x "$FRAMEBUS" ]] || die "$FRAMEBUS is not built" "next: make triton-bench"
[[ -f "$MODEL" ]] || die "the model is missing" "next: make setup"

export PYTHONDONTWRITEBYTECODE=1
WORK="$(mktemp -d)"
SERVER=''
finish() {
    if [[ -n "$SERVER" ]]; then
        kill "$SERVER" 2>/dev/null || true
        wait "$SERVER" 2>/dev/null || true
    fi
    rm -rf "$WORK"
}
trap finish EXIT
trap 'exit 130' INT TERM

PRECISIONS=(f32)
# The names that Linux gives it on x86-64 and on aarch64.
! grep -qwE 'avx512_bf16|amx_bf16|bf16' /proc/cpuinfo || PRECISIONS=(bf16 f32)
"$FRAMEBUS" models prepare "$MODEL" --output "$WORK/yolov8n-cut.onnx" >/dev/null
models=()
for precision in "${PRECISIONS[@]}"; do
    models+=("yolov8n_$precision=$MODEL,precision=$precision")
    models+=("yolov8n_cut_$precision=$WORK/yolov8n-cut.onnx,precision=$precision")
done
"$PYTHON" "$FB_ROOT/deploy/triton/make_repository.py" "$WORK/repository" "${models[@]}" >/dev/null

port="$("$PYTHON" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')"
"$FB_ROOT/deploy/triton/serve.sh" --repository "$WORK/repository" --grpc-port "$port" --log "$WORK/log" &
SERVER=$!
if ! "$PYTHON" - "127.0.0.1:$port" "$SERVER" "$START" <<'PY'; then
import os, sys, time
import tritonclient.grpc as triton

url, server, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
client = triton.InferenceServerClient(url)
end = time.monotonic() + seconds
while time.monotonic() < end and os.path.exists(f"/proc/{server}/exe"):
    try:
        if client.is_server_ready():
            sys.exit(0)
    except triton.InferenceServerException:
        pass
    time.sleep(0.1)
sys.exit(1)
PY
    tail -n 20 "$WORK/log" >&2
    die "the Triton server does not come up" "what it said is above"
fi

# bench NAME INPUT PRECISION
bench() {
    [[ ${#JSON[@]} -gt 0 ]] || say "YOLOv8n, input $2, $3"
    "$FRAMEBUS" bench triton --url "127.0.0.1:$port" --triton-model "$1" --model "$MODEL" --input "$2" \
        --precision "$3" --pictures "$FB_MEDIA" --calls "$TURNS" "${JSON[@]}" \
        --beside "'$PYTHON' '$FB_ROOT/scripts/triton/python_client.py' 127.0.0.1:$port $1 $2"
    [[ ${#JSON[@]} -gt 0 ]] || echo
}

for precision in "${PRECISIONS[@]}"; do
    bench "yolov8n_$precision" 640x640 "$precision"
    bench "yolov8n_cut_$precision" 384x640 "$precision"
done
