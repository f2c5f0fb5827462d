#!/usr/bin/env bash
# Runs the fault tests and writes docs/faults.md from the lines that they print:
#   FAULT what was done | what `framebus status` said | after how many seconds
#
# usage: scripts/fault_table.sh     (make faults builds what it runs)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT"

export FRAMEBUS_REQUIRE_ASSETS=1
LOG="$FB_DATA/faults.log"
mkdir -p "$FB_DATA"

# cargo test and not nextest: only this prints what passing tests say, in order.
say "running the fault tests, one after the other"
status=0
cargo test -p framebus-tests --test 'faults_*' --no-fail-fast -- --nocapture --test-threads=1 2>&1 |
    tee "$LOG" || status=$?
[[ $status == 0 ]] || die "a fault test failed; docs/faults.md stays as it was" "its output: $LOG"
# The test runner's own words may stand before it on the line.
rows="$(sed -n 's/^.*FAULT \(.* | .* | [0-9.]*\)$/| \1 |/p' "$LOG" | sed 's/ ()//; s/127\.0\.0\.1:[0-9]*/127.0.0.1:…/g')"
[[ -n "$rows" ]] || die "no fault test said anything" "its output: $LOG"

cat >docs/faults.md <<TABLE
# What status says when something fails

Written by \`make faults\` from the fault tests in \`tests/tests/faults_*.rs\`: they inject the
fault into a running instance of the real programs, ask \`framebus status --json\` until it
says so, and check that the other cameras lost no frame and that everything recovers.

The time runs from the fault to the end of the command that told of it. The command itself
takes 2.3 s, because rates need two reports of every process, and a new one starts every
1.2 s: a state that \`framebus top\` shows at once is said here after 2.3 s at the earliest.
Rows of picture faults are read from the health reports behind it, the sentence from a status
somewhat later.

\`live\` stands where the fault was over before the first look: what the publisher sent is
counted (\`bad_headers\`), and so are the frames of the process that the engine took along
(\`orphaned\`). Of picture faults the time includes the thresholds of the test: 3 s frozen,
1 s black and blurred, about 5 s late.

| fault | \`framebus status\` | after s |
|---|---|---:|
$rows
TABLE
ok "docs/faults.md: $(wc -l <<<"$rows") faults"
