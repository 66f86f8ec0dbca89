# Sourced by the other scripts, from the repository's root. Everything for people goes to stderr.
# shellcheck shell=bash

say() { printf '==> %s\n' "$*" >&2; }

# fail WHAT REPAIR
fail() {
    printf 'error: %s\n  repair: %s\n' "$1" "$2" >&2
    exit 1
}

# version_at_least HAVE WANT: x.y.z; a preview (2.14.5-rc.1) is older than what it previews; nonsense is too old.
version_at_least() {
    local have=${1%%-*} want=$2 i
    local -a a b
    [[ $have =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || return 1
    IFS=. read -ra a <<<"$have"
    IFS=. read -ra b <<<"$want"
    for i in 0 1 2; do
        if ((10#${a[i]} != 10#${b[i]:-0})); then
            ((10#${a[i]} > 10#${b[i]:-0}))
            return
        fi
    done
    [[ $1 == "$have" ]]
}
