# What the scripts share. Sourced by bash.
# shellcheck shell=bash

script=$PWD/scripts/${0##*/}

# Programs or files that must be there, and the Debian package that brings each.
build_needs=(
    "cc:build-essential"
    "pkg-config:pkg-config"
    "clang:clang"
    "/usr/lib/*/pkgconfig/libdpdk.pc /usr/local/lib/*/pkgconfig/libdpdk.pc:libdpdk-dev"
    "/usr/lib/llvm-*/lib/libclang.so /usr/lib/llvm-*/lib/libclang-[0-9]*.so:libclang-dev"
)
package_needs=("dh:debhelper" "dpkg-shlibdeps:dpkg-dev" "lintian:lintian")
manual_needs=("mandoc:mandoc")
count_needs=("valgrind:valgrind")
lab_needs=(
    "ip:iproute2"
    "ethtool:ethtool"
    "ping:iputils-ping"
    "arping:iputils-arping"
    "tcpdump:tcpdump"
    "nginx:nginx-light"
    "python3:python3"
    "curl:curl"
    "wrk:wrk"
    "dpdk-testpmd:dpdk-dev"
    "sysctl:procps"
    "taskset:util-linux"
)

# What plays frames by hand (tests/blackbox).
blackbox_needs=(
    "ip:iproute2"
    "sysctl:procps"
    "/usr/bin/python3:python3"
    "/usr/lib/python3/dist-packages/scapy:python3-scapy"
)

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Print the comment that a script begins with, and end, when it is asked for help: before anything is
# installed or built.
help_first() {
    local argument
    for argument in "$@"; do
        case $argument in
            -h | --help)
                sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
                exit 0
                ;;
        esac
    done
}

is_root() { [ "$(id -u)" = 0 ]; }

# Run as root: as we are, or through sudo.
as_root() {
    if is_root; then "$@"; else sudo "$@"; fi
}

# Whether one of some programs or file patterns is there. Programs are also looked for where root
# has them.
have() {
    local what
    for what in $1; do
        if [[ $what == /* ]]; then
            compgen -G "$what" >/dev/null && return 0
        elif PATH="$PATH:/usr/sbin:/sbin" command -v "$what" >/dev/null; then
            return 0
        fi
    done
    return 1
}

# Print the packages that are missing of the needs given.
missing_packages() {
    local need
    for need in "$@"; do
        have "${need%:*}" || printf '%s\n' "${need##*:}"
    done
}

# Install what is missing of the needs given, with apt.
install_missing() {
    local packages
    mapfile -t packages < <(missing_packages "$@")
    [ "${#packages[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        die "install these, as named on Debian: ${packages[*]}"
    is_root || command -v sudo >/dev/null ||
        die "not root and no sudo: let root run: apt-get install ${packages[*]}"
    say "Installing ${packages[*]}"
    {
        as_root apt-get update -q &&
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -q -y --no-install-recommends "${packages[@]}"
    } >&2 || die "apt-get could not install ${packages[*]}"
}

# The Rust toolchain. Debian's is older than this workspace needs.
need_cargo() {
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null ||
        die "cargo is missing: install Rust $wanted or newer with rustup, from https://rustup.rs (Debian's rustc is too old)"
    local found
    found=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n1)" != "$wanted" ]; then
        die "rustc $found is too old: install Rust $wanted or newer with rustup, from https://rustup.rs"
    fi
}

# Where cargo puts release builds.
release_dir() { printf '%s/release\n' "${CARGO_TARGET_DIR:-target}"; }

# Build all programs of the workspace, optimised.
build_release() {
    say "Building (release)"
    cargo build --release --locked --workspace --bins >&2
}

# Hold the man pages of a directory against mandoc: whatever it says is an error.
lint_manual() {
    mandoc -T lint "$1"/*.[1-9] >&2
}
