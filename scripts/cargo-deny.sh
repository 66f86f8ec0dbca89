#!/usr/bin/env bash
# Runs cargo-deny with the arguments given; installs it into .tools/ first if the one on PATH is missing or too old.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

# deny.toml is written for this one.
readonly version_pinned=0.20.2
readonly installed=.tools/bin/cargo-deny

version_of() { "$1" --version 2>/dev/null | sed -n 's/^cargo-deny //p'; }

deny=$(command -v cargo-deny || true)
if [[ -z $deny ]] || ! version_at_least "$(version_of "$deny" || true)" "$version_pinned"; then
    deny=$installed
    if [[ $(version_of "$installed" || true) != "$version_pinned" ]]; then
        say "installing cargo-deny $version_pinned into .tools/bin (once, one to two minutes on two cores)"
        # Unoptimised: it compiles three times as fast and the check takes half a second more.
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --debug --locked --force --root .tools "cargo-deny@$version_pinned" >&2 \
            || fail "cargo could not install cargo-deny $version_pinned (its output is above)" \
                "mend what it names (the network, most likely) and try again; or put cargo-deny $version_pinned or newer on PATH"
    fi
fi
exec "$deny" "$@"
