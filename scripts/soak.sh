#!/usr/bin/env bash
# Runs four cameras for a while and draws what every process held on to.
#
# usage: scripts/soak.sh MINUTES     (make soak builds what it runs)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

MINUTES="${1:-30}"
SOAK="$FB_TARGET/release/examples/soak"
OUT="$FB_DATA/soak"
PYTHON="$FB_DATA/venv/bin/python"
MATPLOTLIB=3.10.8
[[ -x "$SOAK" ]] || die "$SOAK is not built" "next: make soak"
mkdir -p "$OUT"

# Before the run: half an hour for a picture that cannot be drawn would be a pity.
if ! "$PYTHON" -c 'import matplotlib' 2>/dev/null; then
    say "installing matplotlib into .framebus/venv"
    [[ -x "$PYTHON" ]] || python3 -m venv "$FB_DATA/venv"
    "$FB_DATA/venv/bin/pip" --disable-pip-version-check -q install "matplotlib==$MATPLOTLIB" ||
        die "pip could not install matplotlib" "next: check the network or your pip configuration; it draws docs/soak.png"
fi

say "four cameras for $MINUTES minutes; samples: $OUT/samples.csv"
status=0
"$SOAK" --minutes "$MINUTES" --csv "$OUT/samples.csv" || status=$?
if [[ -s "$OUT/samples.csv" ]]; then
    "$PYTHON" "$FB_ROOT/scripts/plot_soak.py" "$OUT/samples.csv" "$FB_ROOT/docs/soak.png"
    ok "picture: docs/soak.png"
fi
exit "$status"
