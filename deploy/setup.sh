#!/bin/sh
# Installs what the build needs and this machine lacks: a C++ compiler and libclang with its headers, for RocksDB.
# `setup.sh tests` adds a PostgreSQL, a MariaDB and a Redis server, Prometheus and debhelper for the tests, where apt is there; without
# them they skip what needs one. `setup.sh dist` adds what packing needs.
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

as_root=""
[ "$(id -u)" -eq 0 ] || as_root=sudo

packages=""
has_compiler || packages="$packages build-essential"
has_libclang || packages="$packages libclang-dev"

if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        say "missing:$packages (or what your system calls them: a C++20 compiler, libclang with its headers)."
        say "Install them and run the command again. An unpacked libclang is found through LIBCLANG_PATH."
        exit 1
    fi
    if [ -n "$as_root" ] && ! command -v "$as_root" >/dev/null 2>&1; then
        say "missing:$packages. Run as root: apt-get install -y --no-install-recommends$packages"
        exit 1
    fi
    say "installing$packages"
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends $packages
fi

has_packing() { command -v dh >/dev/null 2>&1 && command -v objcopy >/dev/null 2>&1 && command -v python3 >/dev/null 2>&1; }

install_packing() {
    $as_root apt-get update -qq || return 1
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends debhelper binutils python3
}

# What says whether it is there, its name, what installs it, what happens without it.
want() {
    "$1" && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        say "no $2 and no apt: $4."
    elif [ -n "$as_root" ] && ! $as_root -n true 2>/dev/null; then
        say "no $2 and no right to install one: $4."
    else
        say "installing $2"
        "$3" || say "$2 could not be installed: $4."
    fi
}

case "${1:-}" in
tests) ;;
dist)
    want has_packing debhelper install_packing "no Debian packages are made"
    exit 0
    ;;
*) exit 0 ;;
esac

has_postgres() {
    command -v initdb >/dev/null 2>&1 && command -v postgres >/dev/null 2>&1 && return 0
    for server in /usr/lib/postgresql/*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
        /usr/local/opt/postgresql*/bin/postgres; do
        [ -x "$server" ] && return 0
    done
    return 1
}

# The programs alone: while they are installed, the package is told to make no cluster, so that no service runs afterwards.
install_postgres() {
    conf=/etc/postgresql-common/createcluster.conf
    $as_root apt-get update -qq || return 1
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends postgresql-common || return 1
    $as_root cp -p "$conf" "$conf.before" || return 1
    echo 'create_main_cluster = false' | $as_root tee -a "$conf" >/dev/null
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends postgresql && installed=0 || installed=1
    $as_root mv "$conf.before" "$conf"
    return "$installed"
}

has_mariadb() {
    command -v mariadb-install-db >/dev/null 2>&1 && command -v my_print_defaults >/dev/null 2>&1 || return 1
    command -v mariadbd >/dev/null 2>&1 || [ -x /usr/sbin/mariadbd ]
}

# The programs alone: these packages bring no service.
install_mariadb() {
    $as_root apt-get update -qq || return 1
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends mariadb-server-core mariadb-client-core
}

# Debian's redis-check-rdb is the server, which looks at the name that it is called by.
has_redis() { command -v redis-server >/dev/null 2>&1 || command -v redis-check-rdb >/dev/null 2>&1; }

# The programs alone: the package redis-server would add its right name, and start a service.
install_redis() {
    $as_root apt-get update -qq || return 1
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends redis-tools
}

has_prometheus() { command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1; }

# The programs alone, out of Debian's package: installed whole it would add a user and start a service.
install_prometheus() {
    folder=$(mktemp -d) || return 1
    { $as_root apt-get update -qq && (cd "$folder" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .) &&
        $as_root install -m 755 "$folder/usr/bin/prometheus" "$folder/usr/bin/promtool" /usr/local/bin/; } && installed=0 || installed=1
    rm -rf "$folder"
    return "$installed"
}

skipped="tests that need one are skipped"
want has_postgres "PostgreSQL server" install_postgres "$skipped"
want has_mariadb "MariaDB server" install_mariadb "$skipped"
want has_redis "Redis server" install_redis "$skipped"
want has_packing debhelper install_packing "the test of the packages is skipped"
want has_prometheus Prometheus install_prometheus "$skipped"
