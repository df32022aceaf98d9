#!/usr/bin/env bash
# build.sh PREFIX [cargo verb and arguments]: runs cargo for aarch64-unknown-linux-gnu with PREFIX's compilers.
#
# Without arguments it builds the daemon's release binary. `build.sh PREFIX test …` runs tests under qemu-aarch64.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
prefix=${1:?usage: build.sh PREFIX [cargo verb and arguments]}
shift
[ $# -gt 0 ] || set -- build --release --locked -p gatehouse --bin gatehouse
"$here/prefix.sh" "$prefix"
prefix=$(cd "$prefix" && pwd)
cd "$root"
target=aarch64_unknown_linux_gnu
export RUSTC=$prefix/bin/rustc
# Its own directory: another compiler than the machine's, and neither should throw away the other's work.
export CARGO_TARGET_DIR=${ARM_TARGET_DIR:-$root/target/arm}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$prefix/bin/aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$prefix/bin/run-aarch64
export CC_$target=$prefix/bin/aarch64-linux-gnu-gcc
export AR_$target=$prefix/bin/aarch64-linux-gnu-ar
export RANLIB_$target=$prefix/bin/aarch64-linux-gnu-ranlib
exec cargo "$@" --target aarch64-unknown-linux-gnu
