#!/usr/bin/env bash
# The demonstration behind `make demo`: two cameras of real footage, one a file
# and one a real RTSP server on loopback, through the whole pipeline.
#
# usage: scripts/demo.sh [SECONDS]      (default 30)
#        BROKER=mqtt://127.0.0.1:1883 scripts/demo.sh 600
# A page shows it meanwhile; with BROKER, events and results go to that broker as well.
# Everything it writes lies in .framebus/demo/.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

DURATION_S="${1:-30}"
BIN="$FB_TARGET/release"
OUT="$FB_DATA/demo"
mkdir -p "$OUT"
rm -f "$OUT"/*

for program in framebus examples/rtsp_server; do
    [[ -x "$BIN/$program" ]] || die "$BIN/$program is not built" "next: make demo"
done

rtsp_pid=''
cleanup() {
    if [[ -n "$rtsp_pid" ]] && kill "$rtsp_pid" 2>/dev/null; then
        wait "$rtsp_pid" 2>/dev/null || true
    fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port="$(free_port)"
url="rtsp://127.0.0.1:$port/cam"
say "starting an RTSP camera: people on bicycles at $url"
"$BIN/examples/rtsp_server" --port "$port" --mount /cam "$FB_MEDIA/bikes.mp4" >"$OUT/rtsp_server.log" 2>&1 &
rtsp_pid=$!
for ((i = 0; ; i++)); do
    grep -q '^listening ' "$OUT/rtsp_server.log" && break
    if ! kill -0 "$rtsp_pid" 2>/dev/null || ((i >= 100)); then
        tail -n 10 "$OUT/rtsp_server.log" >&2
        die "the RTSP server did not start within 10 s" "its log: $OUT/rtsp_server.log"
    fi
    sleep 0.1
done

page_port="$(free_port)"
# Of this run alone.
token="$(python3 -c 'import secrets; print(secrets.token_hex(16))')"
(umask 077 && : >"$OUT/demo.toml")
cat >"$OUT/demo.toml" <<TOML
# Written by scripts/demo.sh; every key is explained in configs/framebus.toml.
instance = "demo"

[model]
path = "$FB_DATA/models/yolov8n.onnx"

[[camera]]
name = "street"
source = "file:$FB_MEDIA/street1080.mp4"
loop = true
pace = "realtime"

[[camera]]
name = "bikes"
source = "$url"

[[sink]]
name = "jsonl"
kind = "jsonl"
path = "$OUT/results.jsonl"

[[zone]]
camera = "street"
name = "middle"
points = [[0.1, 0.1], [0.9, 0.1], [0.9, 1.0], [0.1, 1.0]]

[[sink]]
name = "page"
kind = "web"
listen = "127.0.0.1:$page_port"
token = "$token"
TOML
if [[ -n "${BROKER:-}" ]]; then
    cat >>"$OUT/demo.toml" <<TOML

[[sink]]
name = "broker"
kind = "mqtt"
url = "$BROKER"
deliver = "both"
TOML
    say "messages: mosquitto_sub -v -t 'framebus/#' with the broker of $BROKER"
fi

say "configuration: $OUT/demo.toml"
say "the page, while it runs: http://127.0.0.1:$page_port/?token=$token"
say "running for $DURATION_S s: framebus up --config … (street: 1080p file, bikes: RTSP)"
# In the background and waited for: a signal to this script is then handled at
# once, and the pipeline drains before the camera goes away.
"$BIN/framebus" up --config "$OUT/demo.toml" --duration-s "$DURATION_S" --follow --annotate "$OUT/annotated.jpg" &
up_pid=$!
stop_up() {
    kill -TERM "$up_pid" 2>/dev/null || true
    wait "$up_pid" 2>/dev/null || true
    cleanup
}
trap stop_up EXIT
status=0
wait "$up_pid" || status=$?
[[ $status == 0 ]] || die "framebus up ended with exit code $status" "its messages are above"

[[ -s "$OUT/annotated.jpg" ]] || die "no annotated picture was written to $OUT/annotated.jpg"
for camera in street bikes; do
    # -c and not -q: a reader that leaves early fails the pipe (pipefail).
    grep "\"$camera\"" "$OUT/results.jsonl" 2>/dev/null | grep -c '"label"' >/dev/null ||
        die "camera $camera gave no detection" "see $OUT/results.jsonl and $OUT/rtsp_server.log"
done
echo
ok "results, one JSON object a line:  $OUT/results.jsonl ($(wc -l <"$OUT/results.jsonl") lines)"
ok "a frame with its boxes drawn:     $OUT/annotated.jpg"
