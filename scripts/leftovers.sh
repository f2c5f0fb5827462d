#!/usr/bin/env bash
# Says whether the test run left anything of framebus behind.
#
# usage: scripts/leftovers.sh snapshot FILE    remember what is there now
#        scripts/leftovers.sh check FILE       fail if there is more than that
#
# Looked at: framebus's files in /dev/shm, its default bus folder in /tmp and those of
# `detect` and `bench`, and running processes of this checkout's build. A snapshot comes
# first because an installation of framebus may be at work on the same machine.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

list() {
    local entry exe
    for entry in /dev/shm/*; do
        case "$(basename "$entry")" in
            # fb<uid>_<instance>_…, see Domain in framebus-bus
            fb[0-9]*_* | *framebus* | *.zenoh) echo "shm $entry" ;;
        esac
    done
    # The default bus.root, and private instances; empty folders may stay.
    find /tmp/framebus-* -user "$(id -u)" \( -type f -o -type s \) -printf 'bus %p\n' 2>/dev/null || true
    for entry in /proc/[0-9]*; do
        exe="$(readlink "$entry/exe" 2>/dev/null)" || continue
        exe="${exe% (deleted)}"
        case "$exe" in
            "$FB_TARGET"/*/framebus* | "$FB_TARGET"/*/examples/*)
                echo "process ${entry#/proc/} $exe" ;;
        esac
    done
}

[[ $# == 2 ]] || die "usage: scripts/leftovers.sh snapshot|check FILE"
case "$1" in
    snapshot) list | sort >"$2" ;;
    check)
        # A process that was told to stop may need a moment to be gone.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            more="$(list | sort | comm -13 "$2" -)"
            [[ -n "$more" ]] || { ok "nothing of framebus is left behind"; exit 0; }
            sleep 1
        done
        die "the tests left this behind:" "$more"
        ;;
    *) die "unknown command '$1'" "usage: scripts/leftovers.sh snapshot|check FILE" ;;
esac
