#!/usr/bin/env bash
# Runs the Triton server of `scripts/setup.sh --triton` in the foreground.
#
# usage: deploy/triton/serve.sh --repository FOLDER [OPTION...] [-- ARGUMENT...]
#   --repository FOLDER  models, as make_repository.py writes them (may be repeated)
#   --grpc-port N        8001
#   --http-port N        also HTTP (off without it; --no-http says so)
#   --metrics-port N     also metrics (off without it)
#   --address A          listen there instead of on 127.0.0.1 only: Triton asks
#                        nobody for a password
#   --log FILE           append what the server and its models print
#   -- ARGUMENT...       passed to tritonserver
#
# TRITON_HOME: where the server is (default: .framebus/triton of this checkout).
# It becomes the server (exec), so this process's id is the server's. SIGTERM ends
# it after the requests in flight. SIGKILL ends it at once, and its models within
# some seconds; with requests in flight /dev/shm/framebus_triton_PID_* stays behind.
set -euo pipefail

fail() {
    printf 'error: %s\n' "$2" >&2
    exit "$1"
}

home="${TRITON_HOME:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.framebus/triton}"
address=127.0.0.1 grpc_port=8001 http_port='' metrics_port='' log=''
arguments=()
while [[ $# != 0 ]]; do
    case "$1" in
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --no-http) http_port='' && shift && continue ;;
        --) shift && break ;;
    esac
    [[ $# -ge 2 ]] || fail 64 "$1 needs a value, or is unknown (see --help)"
    case "$1" in
        --repository)
            [[ -d "$2" ]] || fail 69 "there is no folder $2"
            arguments+=(--model-repository="$2")
            ;;
        --grpc-port) grpc_port="$2" ;;
        --http-port) http_port="$2" ;;
        --metrics-port) metrics_port="$2" ;;
        --address) address="$2" ;;
        --log) log="$2" ;;
        *) fail 64 "unknown option '$1' (see --help)" ;;
    esac
    shift 2
done
[[ ${#arguments[@]} != 0 ]] || fail 64 "--repository FOLDER is missing (see --help)"

home="$(realpath -m "$home")"
server="$home/pytriton/tritonserver"
[[ -x "$server/bin/tritonserver" && -f "$home/.stamp" ]] ||
    fail 69 "there is no Triton server in $home, run: scripts/setup.sh --triton"

arguments+=(--backend-directory="$server/backends" --backend-config="python,shm-region-prefix-name=framebus_triton_$$_")
arguments+=(--grpc-address="$address" --grpc-port="$grpc_port")
if [[ -n "$http_port" ]]; then
    arguments+=(--http-address="$address" --http-port="$http_port")
else
    arguments+=(--allow-http=false)
fi
if [[ -n "$metrics_port" ]]; then
    arguments+=(--metrics-address="$address" --metrics-port="$metrics_port" --allow-gpu-metrics=false)
else
    arguments+=(--allow-metrics=false)
fi

packages=("$home"/venv/lib/python3.*/site-packages)
# The Python backend embeds the interpreter whose venv this is: by its first place
# in PATH it finds that one's standard library, whatever other Pythons are there.
export PATH="$home/venv/bin:$PATH"
export PYTHONPATH="${packages[0]}"
export PYTHONNOUSERSITE=1
unset PYTHONHOME
libpython="$(<"$home/libpython")"
export LD_LIBRARY_PATH="$libpython:$home/nvidia_pytriton.libs"

[[ -z "$log" ]] || exec >>"$log" 2>&1
exec "$server/bin/tritonserver" "${arguments[@]}" "$@"
