#!/usr/bin/env bash
# check.sh: holds what systemd/ promises, with systemd's own tools and without a running systemd.
#
# Owns a temporary directory. Needs the package systemd (udev too, for the rules' syntax, from version 254 on); leaves
# with 77 where it is missing, so that a caller can tell "skipped" from "passed".
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
units=$root/systemd
# 10.0 is "unsafe", 0 a service that can do nothing. What is left is network, serial ports and the clock's own lines.
exposure_max_tenths=18

command -v systemd-analyze >/dev/null || { echo "systemd check: systemd-analyze is missing, skipped" >&2; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() { echo "systemd check: $*" >&2; failures=$((failures + 1)); }

# The daemon need not be installed here: any program stands for it.
unit=$work/gatehouse.service
sed 's#^ExecStart=/usr/bin/gatehouse #ExecStart=/bin/true #' "$units/gatehouse.service" > "$unit"
grep -q '^ExecStart=/bin/true run --config /etc/gatehouse$' "$unit" || fail "ExecStart is not /usr/bin/gatehouse run --config /etc/gatehouse"
# An unknown key is only a warning to verify: any word is a failure here.
said=$(systemd-analyze verify --man=no "$unit" 2>&1) || fail "systemd-analyze verify fails"
[ -z "$said" ] || fail "systemd-analyze verify says: $said"
security=$(systemd-analyze security --offline=true --no-pager --threshold=$exposure_max_tenths "$unit" 2>&1) \
  || fail "exposure is above $exposure_max_tenths tenths: $(tail -n 1 <<< "$security")"

# Each of these cost somebody a box.
has() { grep -qx -- "$1" "$units/gatehouse.service" || fail "the unit lacks $1: $2"; }
lacks() { ! grep -q "^$1" "$units/gatehouse.service" || fail "the unit has $1: $2"; }
has 'Type=notify' 'READY must mean that the journal is open'
has 'Restart=always' 'an exit with 0 must not silence the gate'
has 'StartLimitIntervalSec=0' 'a unit that gave up waits for a person'
has 'DevicePolicy=closed' 'serial ports only'
has 'SupplementaryGroups=dialout' 'serial ports belong to dialout'
has 'StateDirectory=gatehouse' 'the journal is the one place it may write'
lacks PrivateDevices= 'it hides serial ports'
lacks ProtectClock= 'it adds to the device list'
lacks ProcSubset= 'the boot id is in /proc/sys'
lacks 'After=network-online' 'alarms must work with the network down'
grep -q '^WatchdogSec=' "$units/gatehouse.service" || fail 'the unit has no watchdog'
for group in ttyUSB:usbserial ttyACM:cdc_acm; do
  has "DeviceAllow=char-${group%:*} rw" 'adapters by USB'
  grep -q "^After=.*modprobe@${group#*:}.service" "$units/gatehouse.service" \
    || fail "the device group ${group%:*} may not exist yet when the unit starts: After=modprobe@${group#*:}.service"
done

mkdir -p "$work/root/etc"
if systemd-sysusers --root="$work/root" "$units/sysusers.d/gatehouse.conf" 2> "$work/said"; then
  grep -q '^gatehouse:.*:/usr/sbin/nologin$' "$work/root/etc/passwd" || fail 'sysusers makes no user gatehouse without a shell'
  grep -q '^dialout:.*[:,]gatehouse\(,\|$\)' "$work/root/etc/group" || fail 'sysusers does not put gatehouse into dialout'
else
  fail "systemd-sysusers: $(cat "$work/said")"
fi
# Only root can give files away; others see whether the lines are understood.
systemd-tmpfiles --create --root="$work/root" "$units/tmpfiles.d/gatehouse.conf" 2> "$work/said" || {
  [ "$(id -u)" != 0 ] && ! grep -v 'Operation not permitted' "$work/said"
} || fail "systemd-tmpfiles: $(cat "$work/said")"
if [ "$(id -u)" = 0 ]; then
  user=$(sed -n 's/^gatehouse:[^:]*:\([0-9]*\):.*/\1/p' "$work/root/etc/passwd" 2>/dev/null || true)
  modes=$(cd "$work/root/etc/gatehouse" 2>/dev/null && stat -c '%n %a %u' . profiles platform secrets | tr '\n' ';' || true)
  [ "$modes" = ". 750 0;profiles 750 0;platform 750 0;secrets 700 $user;" ] || fail "the configuration's directories are $modes"
fi
if udevadm --help 2>/dev/null | grep -q '^ *verify '; then
  udevadm verify "$units/udev/99-gatehouse.rules" > "$work/said" 2>&1 || fail "udevadm verify: $(cat "$work/said")"
fi

[ "$failures" = 0 ] || exit 1
echo "systemd check: passed, $(tail -n 1 <<< "$security" | sed 's/^[^A-Za-z]*//; s/[^ -~]*$//')"
