#!/usr/bin/env bash
# The demo on a disk that is filled, turned read-only and given back meanwhile: it must end with nothing lost that a
# device was told is safe, and `status` must say what happened. Fails if not.
#
# The disk is a small file system in memory, so that it is filled in earnest; mounting it needs root or sudo. Read-only
# it is made by the shim of tests/disk, since the kernel does not remount what somebody has open for writing.
set -euo pipefail
cd "$(dirname "$0")/.."
gatehouse=${GATEHOUSE_BIN:-target/debug/gatehouse}
[ -x "$gatehouse" ] || cargo build --locked -p gatehouse

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

work=$(mktemp -d)
disk=$work/disk
mkdir "$disk"
demo=
finish() {
  if [ -n "$demo" ]; then kill "$demo" 2> /dev/null || true; fi
  as_root umount -l "$disk" 2> /dev/null || true
  rm -rf "$work"
}
trap finish EXIT
as_root mount -t tmpfs -o size=12m,mode=0777 tmpfs "$disk"
cc -shared -fPIC -O2 -o "$work/sick_disk.so" tests/disk/sick_disk.c -ldl
echo well > "$work/control"

say() { echo "== disk-demo: $*"; }
status() { "$gatehouse" status --socket "/tmp/gatehouse-demo-$demo/gatehouse.sock"; }
# Waits until a line of `status` says so.
await() {
  for _ in $(seq 150); do
    if status 2> /dev/null | grep -q "$1"; then return 0; fi
    sleep 0.2
  done
  say "status never said: $1"
  status || true
  exit 1
}
lost='DISK LOST'

TMPDIR=/tmp SICK_DIR=$disk SICK_CONTROL=$work/control LD_PRELOAD=$work/sick_disk.so \
  "$gatehouse" demo --for 45s --data-dir "$disk" > "$work/log" 2>&1 &
demo=$!
await 'journal'
sleep 4
say 'the disk is filled 磁盘写满'
# Again and again, since what is kept in reserve is given up first.
for _ in $(seq 40); do
  cat /dev/zero >> "$disk/filling" 2> /dev/null || true
  if status | grep -q "$lost"; then break; fi
  sleep 0.25
done
await "$lost"
sleep 4
say 'and has room again 释放空间'
rm "$disk/filling"
await 'disk lost 1 times'
sleep 2
say 'the disk is read-only 磁盘只读'
echo readonly > "$work/control"
await "$lost"
sleep 4
say 'and is given back 恢复可写'
echo well > "$work/control"
await 'disk lost 2 times'
status | grep -A3 'journal 记录库'
code=0
wait "$demo" || code=$?
demo=
tail -n 14 "$work/log"
if [ "$code" != 0 ]; then
  grep -v '^  live\|^  backlog' "$work/log" | tail -n 40
  say "the demo failed ($code)"
  exit 1
fi
grep -Eq '^acknowledged and not on disk .* 0$' "$work/log"
grep -Eq '^lost .* 0$' "$work/log"
say 'nothing that was acknowledged is lost 无应答后丢失'
