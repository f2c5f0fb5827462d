#!/usr/bin/env bash
# Counts the instructions of the hot functions under valgrind: the same on every
# run and every machine of one kind, so that two commits can be compared where
# times would be noise.
#
#   scripts/instructions.sh                  a table
#   scripts/instructions.sh --json           one object: name → instructions a call
#   scripts/instructions.sh --against FILE   also compares with such an object;
#                                            exit 1 when one grew by over 5 %
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT"

ROUNDS=3
LIMIT_PERCENT=5

json=no against=''
while [[ $# -gt 0 ]]; do
    case "$1" in
    --json) json=yes ;;
    --against)
        against="${2:-}"
        [[ -r "$against" ]] || die "--against needs a file that '$0 --json' wrote" "got '$against'"
        shift
        ;;
    *) die "unknown argument '$1'" "usage: $0 [--json] [--against FILE]" ;;
    esac
    shift
done
command -v valgrind >/dev/null || die "valgrind is not installed" "Debian and Ubuntu: apt-get install valgrind"

cargo build --quiet --release -p framebus-vision --example hot_path
program="$FB_TARGET/release/examples/hot_path"

# The total that callgrind collected inside the measured function, per call.
# valgrind has no AVX-512: what is counted is the AVX2 code.
count() {
    local log total
    log="$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        '--toggle-collect=*hot_path_measured*' "$program" "$1" "$ROUNDS" 2>&1)" ||
        die "valgrind failed on $1" "$log"
    total="$(sed -n 's/.*Collected : *\([0-9]\+\).*/\1/p' <<<"$log")"
    [[ "${total:-0}" -gt 0 ]] || die "callgrind counted nothing in $1" "$log"
    echo $((total / ROUNDS))
}

names=() counts=()
while read -r name; do
    names+=("$name")
    counts+=("$(count "$name")")
done < <("$program")
[[ ${#names[@]} != 0 ]] || die "$program names no function to count"

# What the baseline says of a name, or nothing.
before() { [[ -z "$against" ]] || sed -n "s/^ *\"$1\": *\([0-9]\+\).*/\1/p" "$against"; }

[[ $json == yes ]] && echo '{'
grown=()
for i in "${!names[@]}"; do
    name="${names[i]}" now="${counts[i]}" was="$(before "${names[i]}")"
    change=''
    if [[ -n "$was" ]]; then
        change="$(awk -v now="$now" -v was="$was" 'BEGIN { printf "%+.2f %%", 100 * (now / was - 1) }')"
        ((now * 100 <= was * (100 + LIMIT_PERCENT))) || grown+=("$name: $was → $now ($change)")
    elif [[ -n "$against" ]]; then
        change=new
    fi
    if [[ $json == yes ]]; then
        comma=,
        [[ $i == $((${#names[@]} - 1)) ]] && comma=''
        printf '  "%s": %d%s\n' "$name" "$now" "$comma"
    else
        printf '%-34s %12d %s\n' "$name" "$now" "$change"
    fi
done
[[ $json == yes ]] && echo '}'
if [[ ${#grown[@]} != 0 ]]; then
    die "more than $LIMIT_PERCENT % more instructions than in $against:" "${grown[@]}"
fi
