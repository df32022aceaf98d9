#!/usr/bin/env bash
# prefix.sh PREFIX: puts into PREFIX all that building for aarch64 and running it needs, from Debian's packages.
#
# Owns PREFIX and nothing else: a private apt (it checks signatures as always) fetches the packages and dpkg-deb unpacks
# them, so that nothing on the machine changes and no root is needed. rustup is not asked for the target, since a box
# behind a mirror of Debian alone must be able to build too; Debian's rustc for browsers (rustc-web) is new enough.
# Limits: the machine is x86-64 with Debian 12, a C compiler and cargo. About 300 MB are fetched, once.
set -euo pipefail
prefix=${1:?usage: prefix.sh PREFIX}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
# A changed script makes a new prefix.
stamp=$prefix/.ready-$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
[ ! -e "$stamp" ] || exit 0

fail() { echo "arm prefix: $*" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || fail "needs an x86-64 machine; on an arm64 one \`cargo build --release\` makes the binary itself"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || fail "$keyring is missing: install debian-archive-keyring"
for tool in apt-get dpkg-deb tar cc cargo; do
  command -v "$tool" >/dev/null || fail "$tool is missing"
done

# The mirror is the one that the machine's own apt uses; also for the suites it does not list. Without --no-release-info
# apt would name only what it has fetched, which on a new machine is nothing.
mirror_of() { # the address of a repository directory, or nothing
  apt-get indextargets --no-release-info --format '$(REPO_URI)' 2>/dev/null | sed -n "s#/$1/\{0,1\}\$#/$1#p" | sort -u | head -n 1
}
main=${DEBIAN_MIRROR:-$(mirror_of debian)}
[ -n "$main" ] || fail "apt's sources name no address that ends in /debian: give it as DEBIAN_MIRROR"
security=$(mirror_of debian-security)
[ -n "$security" ] || security=${main%/debian}/debian-security

rm -f "$prefix"/.ready-*
apt=$prefix/apt
debs=$prefix/debs
mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,trusted.gpg.d,sources.list.d} \
  "$apt"/var/lib/apt/lists/partial "$apt"/var/cache/apt/archives/partial "$apt"/var/lib/dpkg "$debs"
: > "$apt/var/lib/dpkg/status"
cat > "$apt/etc/apt/sources.list" <<SOURCES
deb [signed-by=$keyring arch=amd64,arm64] $main bookworm main
deb [signed-by=$keyring arch=amd64,arm64] $security bookworm-security main
deb [signed-by=$keyring arch=amd64] $main trixie-backports main
SOURCES
# A proxy or a time-out that the machine's apt was given holds for the private one too.
apt-config dump Acquire | grep -iE '^Acquire::https?::Proxy' > "$apt/proxy.conf" || true
cat > "$apt/apt.conf" <<CONF
Dir "$apt";
Dir::State::status "$apt/var/lib/dpkg/status";
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "5";
CONF
cat "$apt/proxy.conf" >> "$apt/apt.conf"
export APT_CONFIG=$apt/apt.conf
echo "arm prefix: fetching Debian packages into $prefix"
apt-get -qq update

# Two names carry versions: what the development packages depend on tells them.
depends() { apt-cache depends "$1" | sed -n "s/^ *Depends: \($2[^ ]*\)\$/\1/p" | head -n 1; }
std=$(depends libstd-rust-web-dev 'libstd-rust-web-[0-9]')
llvm=$(depends "$std" libllvm)
[ -n "$std" ] && [ -n "$llvm" ] || fail "the package libstd-rust-web-dev does not name its libraries as expected"

compiler=(rustc-web libstd-rust-web-dev "$std" "$llvm" libz3-4 libstd-rust-web-dev:arm64)
cross=(gcc-12-aarch64-linux-gnu cpp-12-aarch64-linux-gnu binutils-aarch64-linux-gnu libgcc-12-dev-arm64-cross
  libc6-dev-arm64-cross libc6-arm64-cross linux-libc-dev-arm64-cross libgcc-s1-arm64-cross)
# QEMU older than 11 cannot open serial ports for an emulated program (no TCGETS2).
emulator=(qemu-user/trixie-backports)
# The platform of the smoke test, a native program.
platform=(mosquitto mosquitto-clients libmosquitto1 libcjson1 libdlt2 libwrap0)
(cd "$debs" && apt-get -qq download "${compiler[@]}" "${cross[@]}" "${emulator[@]}" "${platform[@]}")
for deb in "$debs"/*.deb; do
  case ${deb##*/} in
    qemu-user_*) dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$prefix" ./usr/bin/qemu-aarch64 ;;
    *) dpkg-deb -x "$deb" "$prefix" ;;
  esac
done
rm -rf "$debs" "$apt"

# Wrappers, so that nobody has to set LD_LIBRARY_PATH.
libraries=$prefix/usr/lib/x86_64-linux-gnu:$prefix/lib/x86_64-linux-gnu
mkdir -p "$prefix/bin"
wrap() { # NAME COMMAND…
  local name=$1
  shift
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$*" > "$prefix/bin/$name"
  chmod +x "$prefix/bin/$name"
}
wrap rustc "$prefix/usr/bin/rustc"
wrap aarch64-linux-gnu-gcc "$prefix/usr/bin/aarch64-linux-gnu-gcc-12 --sysroot=$prefix"
for tool in ar ranlib nm strip readelf; do wrap "aarch64-linux-gnu-$tool" "$prefix/usr/bin/aarch64-linux-gnu-$tool"; done
wrap mosquitto "$prefix/usr/sbin/mosquitto"
wrap mosquitto_pub "$prefix/usr/bin/mosquitto_pub"
wrap mosquitto_sub "$prefix/usr/bin/mosquitto_sub"
# One glibc only: a multiarch arm64 libc of the machine's, mixed with this ld.so, loops for ever at start.
arm=$prefix/usr/aarch64-linux-gnu
printf '#!/bin/sh\nexec %s -L %s -E LD_LIBRARY_PATH=%s "$@"\n' "$prefix/usr/bin/qemu-aarch64" "$arm" "$arm/lib" > "$prefix/bin/run-aarch64"
chmod +x "$prefix/bin/run-aarch64"

for program in usr/bin/rustc usr/bin/aarch64-linux-gnu-gcc-12 usr/bin/qemu-aarch64 usr/sbin/mosquitto usr/bin/mosquitto_sub; do
  missing=$(LD_LIBRARY_PATH=$libraries ldd "$prefix/$program" 2>/dev/null | grep 'not found' || true)
  [ -z "$missing" ] || fail "$program lacks libraries that a plain Debian 12 has: $missing"
done
"$prefix/bin/rustc" -V
"$prefix/usr/bin/qemu-aarch64" --version | head -n 1
"$prefix/bin/aarch64-linux-gnu-gcc" --version | head -n 1
touch "$stamp"
du -sh "$prefix" | sed 's/^/arm prefix: ready, /'
