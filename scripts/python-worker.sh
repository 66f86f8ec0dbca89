#!/usr/bin/env bash
# Prints the path of a Python that has what the worker in examples/python needs, and makes one in .tools/python if there is none.
#
#   CRONFLEET_PYTHON=$(scripts/python-worker.sh)
#
# $CRONFLEET_PYTHON, if it is set, is refused when it lacks the client, and not replaced. The path is all that goes to stdout.
set -euo pipefail

named=${CRONFLEET_PYTHON:-}
if [[ -n $named ]]; then
    named=$(command -v -- "$named" || printf '%s' "$named")
    [[ $named == /* ]] || named=$PWD/$named
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
. scripts/lib.sh

readonly requirements=examples/python/requirements.txt
readonly installed=$root/.tools/python
readonly by_hand="install nats-py for a Python of yours and name that in CRONFLEET_PYTHON"

pinned_version() { sed -n 's/^nats-py==\([0-9.]*\).*$/\1/p' "$requirements"; }

version_of() { "$1" -c 'import importlib.metadata as m, nats; print(m.version("nats-py"))' 2>/dev/null; }

# Sets `python` to an interpreter that is new enough and has pip.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 \
            && "$candidate" -m pip --version >/dev/null 2>&1; then
            python=$candidate
            return 0
        fi
    done
    return 1
}

install_pinned() {
    local site
    find_python || fail "there is no python3 of 3.9 or newer with pip and venv" \
        "Debian, Ubuntu: apt-get install python3 python3-pip python3-venv; or $by_hand"
    say "installing nats-py $1 into .tools/python (once, 100 KB)"
    mkdir -p "$root/.tools"
    work=$(mktemp -d "$root/.tools/python.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Without a pip of its own, which not every Python can make; ours puts the package there.
    "$python" -m venv --without-pip "$work" >&2 || fail "python3 could not make an environment (its output is above)" "$by_hand"
    site=$("$work/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "$python" -m pip --disable-pip-version-check --no-input \
        install --quiet --no-deps --require-hashes --only-binary=:all: --target "$site" --requirement "$requirements" >&2 \
        || fail "pip could not fetch nats-py $1 as pinned (its output is above)" \
            "mend what it names (the network, most likely) and try again; or $by_hand"
    # An environment may be moved as long as it is run by its interpreter. Whoever else was faster has made the same.
    rm -rf "$installed"
    mv -T "$work" "$installed" 2>/dev/null || [[ -n $(version_of "$installed/bin/python") ]] \
        || fail "$installed could not be put in its place" "remove it and try again"
}

main() {
    local version
    if [[ -n $named ]]; then
        [[ -n $(version_of "$named" || true) ]] \
            || fail "CRONFLEET_PYTHON is $named, which cannot import nats" "unset it, or install nats-py there"
        printf '%s\n' "$named"
        return
    fi
    version=$(pinned_version)
    if [[ $(version_of "$installed/bin/python" || true) != "$version" ]]; then
        install_pinned "$version"
    fi
    printf '%s\n' "$installed/bin/python"
}

main
