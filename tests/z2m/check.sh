#!/bin/sh
# Makes the payloads anew with the converters pinned in package-lock.json and compares them with payloads.jsonl.
# Needs Node.js 20 or later and the npm registry. `--write` replaces the file instead.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
node make-payloads.mjs > "$fresh"
if [ "${1:-}" = "--write" ]; then
    cp "$fresh" payloads.jsonl
elif ! diff -u payloads.jsonl "$fresh"; then
    echo "the converters now make other payloads: look at the difference, then run tests/z2m/check.sh --write" >&2
    exit 1
fi
echo "payloads.jsonl is what the converters make"
