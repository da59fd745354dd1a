#!/bin/sh
# Installs what the build needs and this machine lacks: a C++ compiler and libclang with its headers, for RocksDB.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }

if ! command -v cargo >/dev/null 2>&1; then
    say "no cargo found. Install a Rust toolchain first (https://rustup.rs), 1.88 or newer."
    exit 1
fi

version=$(rustc --version | sed 's/^rustc \([0-9]*\)\.\([0-9]*\).*/\1 \2/')
major=${version% *}
minor=${version#* }
if [ "$major" -eq 1 ] && [ "$minor" -lt 88 ]; then
    say "this is Rust $major.$minor; 1.88 or newer is needed: rustup update"
    exit 1
fi

has_compiler() { command -v c++ >/dev/null 2>&1 && command -v cc >/dev/null 2>&1; }

# bindgen loads libclang when the build runs, and libclang needs its own headers.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    for library in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang-[0-9]*.so* /usr/lib64/libclang.so* \
        /usr/local/lib/libclang*.so* /opt/homebrew/opt/llvm/lib/libclang.dylib \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        case "$library" in *libclang-cpp*) continue ;; esac
        [ -e "$library" ] || continue
        [ "$(uname)" = Darwin ] && return 0
        for header in /usr/lib/llvm-*/lib/clang/*/include/stdbool.h /usr/lib/clang/*/include/stdbool.h \
            /usr/lib64/clang/*/include/stdbool.h /usr/local/lib/clang/*/include/stdbool.h; do
            [ -e "$header" ] && return 0
        done
    done
    return 1
}

packages=""
has_compiler || packages="$packages build-essential"
has_libclang || packages="$packages libclang-dev"
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    say "missing:$packages (or what your system calls them: a C++20 compiler, libclang with its headers)."
    say "Install them and run the command again. An unpacked libclang is found through LIBCLANG_PATH."
    exit 1
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        say "missing:$packages. Run as root: apt-get install -y --no-install-recommends$packages"
        exit 1
    fi
    as_root=sudo
fi

say "installing$packages"
$as_root apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends $packages
