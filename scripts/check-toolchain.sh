#!/usr/bin/env bash
# Says what is missing to build, and how to get it. With --lints, rustfmt and clippy are wanted too (installed by rustup).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

version_min=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*$/\1/p' Cargo.toml | head -n 1)
readonly get_rust="install Rust $version_min or newer with rustup (rustup.rs), or 'rustup update stable' if you have it, then open a new shell"

for tool in cargo rustc; do
    command -v "$tool" >/dev/null || fail "$tool is not on PATH" "$get_rust"
    said=$("$tool" --version 2>&1) || fail "'$tool --version' failed: $said" "$get_rust"
    version=${said#"$tool "}
    version=${version%% *}
    # A nightly of the wanted version will do.
    version_at_least "${version%%-*}" "$version_min" || fail "$tool is version $version, $version_min or newer is needed" "$get_rust"
done

# Crates with C in them, and the linker.
command -v cc >/dev/null || fail "there is no C compiler: cc is not on PATH" \
    "Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc; Alpine: apk add build-base; macOS: xcode-select --install"

if [[ ${1:-} == --lints ]]; then
    missing=()
    cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
    cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
    if ((${#missing[@]})); then
        command -v rustup >/dev/null || fail "missing: ${missing[*]}" "install the packages for ${missing[*]} from where your Rust came"
        say "installing ${missing[*]} (rustup component add)"
        rustup component add "${missing[@]}" >&2 || fail "rustup could not add ${missing[*]} (its output is above)" "rustup component add ${missing[*]}"
    fi
fi
