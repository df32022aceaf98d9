#!/usr/bin/env bash
# Installs what the tests need on a fresh Debian 12, and only what is missing: mosquitto and its clients, strace,
# libfaketime, socat, mbpoll and node through apt, the packages of tests/asyncapi and tests/z2m through npm with their
# lock files, those of tests/modbus through pip with their hashes.
#
# Touches the machine's packages only where a program is missing; needs root or sudo then. Everything else stays in
# this repository.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/usr/local/sbin

# Tests of the payloads of Zigbee2MQTT need this; Debian 12 has 18, so npm brings a newer one.
NODE_MAJOR_MIN=20
NODE_VERSION=20.19.5

have() { command -v "$1" > /dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo -n "$@" || { echo "setup: \`$*\` needs root" >&2; exit 1; }
  else
    echo "setup: run as root: $*" >&2
    exit 1
  fi
}

missing=()
have cc || missing+=(build-essential)
have mosquitto || missing+=(mosquitto)
have mosquitto_pub || missing+=(mosquitto-clients)
have strace || missing+=(strace)
# libfaketime moves the wall clock of the program under test (tests/src/faketime.rs looks in the same places).
ls /usr/lib/*/faketime/libfaketimeMT.so.1 > /dev/null 2>&1 || missing+=(libfaketime)
have unshare || missing+=(util-linux)
have node || missing+=(nodejs)
have npm || missing+=(npm)
have socat || missing+=(socat)
have mbpoll || missing+=(mbpoll)
python3 -c 'import ensurepip' > /dev/null 2>&1 || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  have apt-get || { echo "setup: install ${missing[*]} (no apt-get here)" >&2; exit 1; }
  echo "setup: installing ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
have cargo || { echo "setup: Rust 1.95 or later is missing: https://rustup.rs" >&2; exit 1; }

# The Rust tests look for this one first.
own_node=$PWD/.node/node_modules/.bin
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt "$NODE_MAJOR_MIN" ] && [ ! -x "$own_node/node" ]; then
  case "$(uname -m)" in
    x86_64) platform=linux-x64 ;;
    # npm has no recent one for other machines.
    *) echo "setup: install node $NODE_MAJOR_MIN or later" >&2; exit 1 ;;
  esac
  echo "setup: fetching node $NODE_VERSION through npm"
  npm install --prefix .node --no-save --no-audit --no-fund --loglevel=error "node-$platform@$NODE_VERSION"
  mkdir -p "$own_node"
  ln -sf "../node-$platform/bin/node" "$own_node/node"
fi

for folder in asyncapi z2m; do
  [ -e "$folder/package-lock.json" ] || continue
  # npm's own mark of what it installed tells whether the lock file has changed since.
  mark=$folder/node_modules/.setup-mark
  sum=$(sha256sum < "$folder/package-lock.json")
  [ -e "$mark" ] && [ "$(cat "$mark")" = "$sum" ] && continue
  echo "setup: npm ci in tests/$folder"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  echo "$sum" > "$mark"
done

# A Modbus slave that is not ours: pymodbus, in an environment of its own.
venv=$PWD/.venv
sum=$(sha256sum < modbus/requirements.txt)
if [ ! -e "$venv/.setup-mark" ] || [ "$(cat "$venv/.setup-mark")" != "$sum" ]; then
  echo "setup: pip install -r tests/modbus/requirements.txt"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r modbus/requirements.txt
  echo "$sum" > "$venv/.setup-mark"
fi
