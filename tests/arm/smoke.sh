#!/usr/bin/env bash
# smoke.sh [BINARY]: `make arm`. Builds the aarch64 release binary (or takes BINARY) and runs it under qemu-aarch64
# against a native mosquitto.
#
# Shows, on ARM code: the configuration check; accounts; a press from a device to the platform; no acknowledged press
# lost over kill -9 with the platform away; the journal's export agreeing with what the platform got; SIGTERM.
# Owns target/arm, a temporary directory, and the processes it starts. ARM_PREFIX names another place than .arm for the
# compilers; SEED replays the moments of the kills.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
prefix=${ARM_PREFIX:-$root/.arm}
presses_per_round=8
kills=3
# An emulated start takes seconds on a busy machine; each wait ends as soon as what it waits for is there.
wait_s=60

SECONDS=0
if [ $# -gt 0 ]; then
  binary=$1
  "$here/prefix.sh" "$prefix"
else
  binary=${ARM_TARGET_DIR:-$root/target/arm}/aarch64-unknown-linux-gnu/release/gatehouse
  "$here/build.sh" "$prefix"
  echo "arm: built in $SECONDS s"
fi
prefix=$(cd "$prefix" && pwd)

work=$(mktemp -d)
touch "$work/received" "$work/gateway.log"
gateway='' platform='' subscriber=''
stop() { # SIGNAL PID: ends one process of ours and waits for it
  [ -n "$2" ] || return 0
  kill "-$1" "$2" 2>/dev/null || true
  wait "$2" 2>/dev/null || true
}
finish() {
  local code=$?
  stop KILL "$gateway"
  stop KILL "$subscriber"
  stop KILL "$platform"
  [ "$code" = 0 ] || { echo "--- the gateway's last words" >&2; tail -n 30 "$work/gateway.log" >&2 || true; }
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT
fail() { echo "arm: FAILED: $*" >&2; exit 1; }
passed() { echo "arm: ok: $*"; }
until_true() { # SECONDS COMMAND…: tries again every 50 ms
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.05
  done
}
gatehouse() { "$prefix/bin/run-aarch64" "$binary" "$@"; }

RANDOM=${SEED:=$(($(date +%s) % 32768))}
echo "arm: SEED=$SEED"
free_port() { # sets PORT to one below the kernel's ephemeral range that nothing holds
  local hex
  while :; do
    PORT=$((20000 + RANDOM % 12000))
    printf -v hex ':%04X ' "$PORT"
    grep -qh "$hex" /proc/net/tcp /proc/net/tcp6 2>/dev/null || return 0
  done
}
free_port; devices_port=$PORT
free_port; platform_port=$PORT
listening() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# --- the file itself
"$prefix/bin/aarch64-linux-gnu-readelf" -h "$binary" | grep -q 'Machine: *AArch64' || fail "$binary is not an aarch64 program"
glibc=$("$prefix/bin/aarch64-linux-gnu-readelf" --dyn-syms -W "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
[ "$(printf '%s\nGLIBC_2.34\n' "$glibc" | sort -V | tail -n 1)" = GLIBC_2.34 ] || fail "needs $glibc, docs/installation.md promises 2.34"
"$prefix/bin/aarch64-linux-gnu-strip" -o "$work/stripped" "$binary"
passed "aarch64, $glibc, $(($(stat -c %s "$binary") / 1024)) KiB, stripped $(($(stat -c %s "$work/stripped") / 1024)) KiB"

# --- configuration
cat > "$work/gatehouse.toml" <<CONFIG
[gateway]
name = "arm"
compound = "smoke"
data_dir = "data"
secrets_dir = "secrets"

[buses.lan.broker]
listen = "127.0.0.1:$devices_port"
logins_per_s = 1000
commit_timeout_ms = 30000

[clients.z2m]

[devices.lobby]
profile = "z2m-button-action"
client = "z2m"
address = "lobby"
place = { building = "1" }

[uplinks.street.mqtt]
url = "mqtt://127.0.0.1:$platform_port"
pacing = { reconnect_max_s = 1, reconnect_critical_max_s = 1, backlog_delay_max_s = 0, backlog_per_s = 1000 }
CONFIG
gatehouse check "$work/gatehouse.toml" || fail 'check refuses a good configuration'
sed 's/^client = "z2m"$/client = "z2n"/' "$work/gatehouse.toml" > "$work/broken.toml"
line=$(grep -n '^client = "z2n"$' "$work/broken.toml" | cut -d: -f1)
said=$(gatehouse check "$work/broken.toml" 2>&1) && fail 'check takes a client that does not exist'
grep -q "broken.toml:$line:" <<< "$said" || fail "check does not name line $line: $said"
grep -q 'did you mean "z2m"' <<< "$said" || fail "check does not name the nearest client: $said"
rm "$work/broken.toml"
passed 'check takes a good configuration and names the line of a mistake'
mkdir -p "$work/data" "$work/secrets"
secret=$(gatehouse client --config "$work/gatehouse.toml" add z2m | grep -oE '\b[0-9a-f]{32}\b' | head -n 1)
[ -n "$secret" ] || fail 'client add shows no secret of 128 bits'

# --- processes
start_gateway() {
  local begin=$EPOCHREALTIME
  "$prefix/bin/run-aarch64" "$binary" run --config "$work/gatehouse.toml" >> "$work/gateway.log" 2>&1 &
  gateway=$!
  until_true "$wait_s" listening "$devices_port" || fail 'the gateway does not listen'
  start_ms=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
}
start_platform() {
  "$prefix/bin/mosquitto" -p "$platform_port" >> "$work/platform.log" 2>&1 &
  platform=$!
  until_true "$wait_s" listening "$platform_port" || fail 'mosquitto does not listen'
  "$prefix/bin/mosquitto_sub" -p "$platform_port" -V mqttv5 -q 1 -t 'gatehouse/v1/arm/up/#' -F '%t %p' >> "$work/received" 2>> "$work/platform.log" &
  subscriber=$!
}
stop_platform() {
  stop TERM "$subscriber"
  stop TERM "$platform"
  subscriber='' platform=''
}
press() { # one press by the device; true when the gateway acknowledged it
  timeout "$wait_s" "$prefix/bin/mosquitto_pub" -p "$devices_port" -i z2m -u z2m -P "$secret" -q 1 -t z2m/lobby \
    -m '{"action":"emergency"}' > /dev/null 2>&1
}
# The ids of the presses that the platform has, each once.
received_ids() {
  grep '/up/event/emergency ' "$work/received" | grep -o '"id":"[0-9a-f]*-event-[0-9]*"' | cut -d'"' -f4 | sort -u
}
received_at_least() { [ "$(received_ids | wc -l)" -ge "$1" ]; }

# --- round trip
start_platform
start_gateway
passed "listening $start_ms ms after its start, under emulation"
press || fail 'a press was not acknowledged'
acknowledged=1 tried=1
until_true "$wait_s" received_at_least 1 || fail 'the platform does not see the press'
gatehouse status --config "$work/gatehouse.toml" > "$work/status" || fail 'status does not answer'
grep -q street "$work/status" || fail "status does not name the uplink: $(cat "$work/status")"
passed 'a press goes from the device to the platform; status answers'

# --- kill -9 with the platform away
stop_platform
for ((round = 1; round <= kills; round++)); do
  for ((i = 1; i <= presses_per_round; i++)); do
    press || fail 'a press was not acknowledged while the platform was away'
    acknowledged=$((acknowledged + 1)) tried=$((tried + 1))
  done
  press &
  pressing=$!
  printf -v pause '0.%03d' $((RANDOM % 50))
  sleep "$pause"
  stop KILL "$gateway"
  tried=$((tried + 1))
  # Killed before its PUBACK, the press may be on disk or not; after it, it must be.
  if wait "$pressing"; then acknowledged=$((acknowledged + 1)); fi
  start_gateway
done
start_platform
until_true "$wait_s" received_at_least "$acknowledged" \
  || fail "$acknowledged presses were acknowledged, the platform has $(received_ids | wc -l)"
passed "$kills times kill -9: $acknowledged presses acknowledged of $tried, $(received_ids | wc -l) at the platform"

# --- the journal agrees
gatehouse journal export --data-dir "$work/data" --class event > "$work/export" || fail 'journal export fails while the gateway runs'
exported_ids() { grep '"button.pressed"' "$work/export" | grep -o '"id":"[0-9a-f]*-event-[0-9]*"' | cut -d'"' -f4 | sort -u; }
exported=$(exported_ids | wc -l)
[ "$exported" -ge "$acknowledged" ] && [ "$exported" -le "$tried" ] || fail "the journal holds $exported presses"
all_delivered() { [ "$(exported_ids)" = "$(received_ids)" ]; }
until_true "$wait_s" all_delivered || fail 'the journal and the platform do not hold the same presses'
passed "the journal exports the same $exported presses"

# --- orderly end
begin=$EPOCHREALTIME
kill -TERM "$gateway"
code=0
wait "$gateway" || code=$?
gateway=''
[ "$code" = 0 ] || fail "ends with $code on SIGTERM"
passed "SIGTERM ends it after $(((${EPOCHREALTIME/./} - ${begin/./}) / 1000)) ms"
echo "arm: passed in $SECONDS s"
