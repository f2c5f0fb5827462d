#!/usr/bin/env bash
# Installs the package in a fresh Debian 12, boots systemd there and starts the units,
# upgrades, removes and purges, and says what was left behind. As root.
#
# usage: scripts/deb_test.sh [PACKAGE.deb]     default: the newest in target/debian
#
# Needs debootstrap and systemd-nspawn (Debian: debootstrap, systemd-container); packages
# come from where this machine's apt gets Debian's. Everything happens in a temporary folder.
# Scripts in single quotes run inside; the newest package is the one that is meant.
# shellcheck disable=SC2012,SC2016
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

SUITE=bookworm
[[ $EUID == 0 ]] || die "this needs root: it makes a system of its own" "next: sudo make deb-test"
for tool in debootstrap systemd-nspawn; do
    command -v "$tool" >/dev/null ||
        die "$tool is missing" "next: apt-get install debootstrap systemd-container"
done
deb="${1:-$(ls -t "$FB_TARGET"/debian/framebus_*.deb 2>/dev/null | head -n 1)}"
[[ -f "$deb" ]] || die "there is no package" "next: make deb"
model="$FB_DATA/models/yolov8n.onnx" picture="$FB_MEDIA/bus.jpg" openvino="$FB_DATA/openvino"
[[ -f "$model" && -f "$picture" && -d "$openvino" ]] ||
    die "model, picture or OpenVINO are missing in .framebus" "next: make setup"

work="$(mktemp -d /var/tmp/framebus-deb.XXXXXX)"
root="$work/root"
trap 'rm -rf --one-file-system "$work"' EXIT
log="$work/log"

# ---- a fresh Debian ----------------------------------------------------------
# Where apt gets this suite from; debian.org's own name where it has none.
mirror="$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$SUITE" '$1 == suite { print $2; exit }')"
say "making a Debian $SUITE in $root"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus \
    "$SUITE" "$root" "${mirror:-http://deb.debian.org/debian}" >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "debootstrap failed"; }
apt-config dump | grep -i '^Acquire::https\?::proxy' >"$root/etc/apt/apt.conf.d/99host" || true
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/opt/framebus" "$root/srv"
cp -rL "$openvino" "$root/opt/framebus/openvino"
cp "$model" "$picture" "$root/srv/"
cp "$deb" "$root/srv/framebus.deb"
# The same contents with a higher version.
dpkg-deb --raw-extract "$deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb --build -Zgzip "$work/next" "$root/srv/next.deb" >>"$log"
rm -rf "$work/next"

# inside COMMAND: in the fresh Debian, with its own /dev/shm, /run and /tmp.
inside() {
    systemd-nspawn --quiet --directory="$root" --register=no --keep-unit --resolv-conf=off \
        --pipe --setenv=DEBIAN_FRONTEND=noninteractive "$@" </dev/null >>"$log" 2>&1
}
# booted SCRIPT: the same, with systemd as process 1; SCRIPT runs as a unit and ends it.
booted() {
    printf '%s\n' '#!/bin/sh' 'exec >/srv/booted.log 2>&1; set -x' \
        'trap "systemctl poweroff --no-block" EXIT' "$1" 'echo BOOTED-OK' >"$root/srv/booted.sh"
    rm -f "$root/srv/booted.log"
    timeout --kill-after=20 150 systemd-nspawn --quiet --directory="$root" --boot --register=no \
        --keep-unit --resolv-conf=off --link-journal=no --console=pipe </dev/null >>"$log" 2>&1 || true
    cat "$root/srv/booted.log" >>"$log" 2>/dev/null || true
    grep -q '^BOOTED-OK' "$root/srv/booted.log" 2>/dev/null
}
cat >"$root/etc/systemd/system/booted.service" <<'UNIT'
[Unit]
After=dbus.service
[Service]
Type=oneshot
ExecStart=/bin/sh -e /srv/booted.sh
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../booted.service "$root/etc/systemd/system/multi-user.target.wants/"

failed=0
rows=()
# step WHAT COMMAND…: a row of the table.
step() {
    local what="$1" start=$SECONDS
    shift
    printf '\n### %s\n' "$what" >>"$log"
    if "$@"; then
        rows+=("ok|$what|$((SECONDS - start))")
    else
        rows+=("FAILED|$what|$((SECONDS - start))")
        failed=1
        warn "$what failed; the last lines:"
        tail -n 40 "$log" >&2
    fi
}
# What a package manager changes anyway is not looked at.
list() {
    (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache/apt \
        -o -path ./var/cache/ldconfig -o -path ./var/log -o -path ./run -o -path ./tmp -o -path ./srv \
        -o -path ./var/lib/systemd -o -path ./etc/machine-id \) -prune -o -print | LC_ALL=C sort)
}

# Dependencies first, so that the lists differ by this package alone.
depends="$(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/(.*//; s/|.*//; s/ //g' | tr '\n' ' ')"
say "installing what it depends on (about 150 MB)"
inside apt-get update || { tail -n 5 "$log" >&2; die "apt-get update failed inside"; }
# shellcheck disable=SC2086
inside apt-get install -y --no-install-recommends $depends ||
    { tail -n 5 "$log" >&2; die "the packages it depends on cannot be installed"; }
booted true || { tail -n 20 "$log" >&2; die "systemd does not boot in a container here"; }
list >"$work/before"
cp "$root/etc/passwd" "$work/passwd"

# ---- the package -------------------------------------------------------------
say "install, use, boot, upgrade, remove, purge"
step "install" inside apt-get install -y --no-install-recommends /srv/framebus.deb
nothing_enabled() { ! find "$root"/etc/systemd/system -name '*framebus*' | grep -q .; }
step "nothing is enabled" nothing_enabled
step "the shipped configuration names what is missing" inside sh -c '
    framebus check; test $? = 78'
inside install -D -o framebus -g framebus -m 644 /srv/yolov8n.onnx /var/lib/framebus/models/yolov8n.onnx
step "framebus check" inside runuser -u framebus -- framebus check
step "framebus detect" inside runuser -u framebus -- sh -c '
    cd /var/lib/framebus && framebus detect --json --model /srv/yolov8n.onnx /srv/bus.jpg | grep person'

cat >"$work/framebus.toml" <<'TOML'
[bus]
root = "/run/framebus"
[model]
path = "/var/lib/framebus/models/yolov8n.onnx"
[[camera]]
name = "front-door"
source = "test:ball?width=320&height=240&fps=5"
[[camera]]
name = "yard"
source = "test:ball?width=320&height=240&fps=5"
[[sink]]
name = "results"
kind = "jsonl"
path = "/var/lib/framebus/results.jsonl"
TOML
cat "$work/framebus.toml" >"$root/etc/framebus/framebus.toml"

# Units of the instance that are up; results of both cameras must come.
started='
units="framebus-capture@front-door framebus-capture@yard framebus-infer framebus-sink@results"
# `!` is no reason for sh -e to end.
not() { if "$@"; then return 1; fi; }
is_live() { runuser -u framebus -- framebus status --json | grep -q "\"live\""; }
grows() {
    for camera in front-door yard; do
        had=$(grep -c "\"camera\":\"$camera\"" /var/lib/framebus/results.jsonl || true)
        for i in $(seq 100); do
            now=$(grep -c "\"camera\":\"$camera\"" /var/lib/framebus/results.jsonl || true)
            if [ "$now" -gt "$((had + 2))" ]; then continue 2; fi
            sleep 0.1
        done
        systemctl status --no-pager $units || true; journalctl --no-pager -n 80 || true; return 1
    done
}
'
step "booted: the target starts all units, each says READY" booted "$started"'
systemctl start framebus.target
for i in $(seq 300); do systemctl is-active -q $units && break; sleep 0.1; done
systemctl is-active $units framebus-config || { journalctl --no-pager -n 80; exit 1; }
grows; is_live
systemctl show -p StatusText,NRestarts $units'
step "booted: killed processes are back in 10 s" booted "$started"'
systemctl start framebus.target; grows
for unit in $units; do systemctl kill -s KILL $unit; done
sleep 3; grows; systemctl is-active $units'
step "booted: the watchdog ends what hangs" booted "$started"'
systemctl start framebus.target; grows
pid=$(systemctl show -p MainPID --value framebus-infer); kill -STOP $pid
for i in $(seq 250); do [ "$(systemctl show -p NRestarts --value framebus-infer)" != 0 ] && break; sleep 0.1; done
[ "$(systemctl show -p NRestarts --value framebus-infer)" = 1 ]; grows
journalctl -u framebus-infer --no-pager | grep -q "Watchdog timeout"'
step "booted: any order of start converges" booted "$started"'
for unit in framebus-sink@results framebus-infer framebus-capture@yard framebus-capture@front-door; do
    systemctl start --no-block $unit; sleep 1; done
grows'
step "booted: a file with errors changes nothing, a mended one does" booted "$started"'
systemctl start framebus.target; grows
echo "fps = wrong" >>/etc/framebus/framebus.toml
systemctl daemon-reload; not systemctl reload framebus-config
systemctl restart framebus.target; sleep 1; grows
systemctl is-active $units
sed -i "/^fps = wrong/d; s/name = \"yard\"/name = \"attic\"/" /etc/framebus/framebus.toml
systemctl daemon-reload; systemctl restart framebus.target; sleep 2
systemctl is-active framebus-capture@attic
[ "$(systemctl is-active framebus-capture@yard)" = inactive ]
journalctl -u framebus-config --no-pager -o short-full
journalctl -u framebus-config -p err --no-pager | grep framebus.toml:'
cat "$work/framebus.toml" >"$root/etc/framebus/framebus.toml"
step "booted: framebus reload restarts only what changed" booted "$started"'
systemctl start framebus.target; grows
pid() { systemctl show -p MainPID --value "$1"; }
door=$(pid framebus-capture@front-door); yard=$(pid framebus-capture@yard); infer=$(pid framebus-infer)
sed -i "0,/name = \"yard\"/s//name = \"yard\"\nmax_age_ms = 900/" /etc/framebus/framebus.toml
framebus reload
for i in $(seq 100); do [ "$(pid framebus-capture@yard)" != "$yard" ] && break; sleep 0.1; done
sleep 1; [ "$(pid framebus-capture@yard)" != "$yard" ]; grows
[ "$(pid framebus-capture@front-door)" = "$door" ]; [ "$(pid framebus-infer)" = "$infer" ]
echo "fps = wrong" >>/etc/framebus/framebus.toml
not framebus reload; sleep 1; [ "$(pid framebus-capture@front-door)" = "$door" ]; grows'
cat "$work/framebus.toml" >"$root/etc/framebus/framebus.toml"
step "booted: it stops, and /dev/shm is empty" booted "$started"'
systemctl start framebus.target; grows
systemctl kill -s KILL framebus-capture@yard
systemctl stop framebus.target
for i in $(seq 100); do [ -z "$(ls /dev/shm)" ] && break; sleep 0.1; done
ls -A /dev/shm; [ -z "$(ls -A /dev/shm)" ]
not sh -c "systemctl list-units --no-legend \"framebus-*\" | grep running"'
step "booted: enabled, it runs after a boot" inside systemctl enable framebus.target
step "booted: an upgrade restarts what runs" booted "$started"'
for i in $(seq 300); do systemctl is-active -q $units && break; sleep 0.1; done; grows
before=$(systemctl show -p MainPID --value framebus-infer)
dpkg -i /srv/next.deb
for i in $(seq 300); do systemctl is-active -q $units && break; sleep 0.1; done; grows
[ "$before" != "$(systemctl show -p MainPID --value framebus-infer)" ]'
step "the configuration of the administrator stays" cmp "$work/framebus.toml" "$root/etc/framebus/framebus.toml"
step "booted: a removal stops everything" booted "$started"'
for i in $(seq 300); do systemctl is-active -q $units && break; sleep 0.1; done
dpkg -r framebus
not pgrep -u framebus; [ -z "$(ls -A /dev/shm)" ]'
step "the configuration survives the removal" test -f "$root/etc/framebus/framebus.toml"
step "purge" inside dpkg --purge framebus
list >"$work/after"
nothing_left() {
    diff "$work/before" "$work/after" >>"$log" && cmp "$work/passwd" "$root/etc/passwd" >>"$log" &&
        [[ ! -e "$root/var/log/framebus" ]]
}
step "nothing is left behind" nothing_left

printf '\n%-8s %5s  %s\n' result s step
for row in "${rows[@]}"; do
    IFS='|' read -r result what seconds <<<"$row"
    printf '%-8s %5s  %s\n' "$result" "$seconds" "$what"
done
[[ $failed == 0 ]] || { cp "$log" "$FB_DATA/deb-test.log"; die "the package has faults" "everything that was said: .framebus/deb-test.log"; }
ok "$(basename "$deb") in a fresh Debian $SUITE"
