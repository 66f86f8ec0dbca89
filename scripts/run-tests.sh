#!/usr/bin/env bash
# Runs the tests of the packages chosen by the arguments (cargo's own: --workspace, -p NAME, --exclude NAME, --locked).
# cargo-nextest runs them when it is installed, `cargo test` otherwise; the tests must pass under both.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib.sh

CRONFLEET_NATS_SERVER=$(scripts/nats-server.sh)
export CRONFLEET_NATS_SERVER
say "nats-server: $CRONFLEET_NATS_SERVER"

# The worker in examples/python has to pass the specs of ours, where there is a Python for it.
if python=$(scripts/python-worker.sh); then
    export CRONFLEET_PYTHON=$python
    say "python: $CRONFLEET_PYTHON"
else
    say "the worker in examples/python is NOT tested: what is missing is said above"
fi

# nextest does not run the examples in the documentation.
say "examples in the documentation (cargo test --doc)"
cargo test --quiet --doc "$@"

if cargo nextest --version >/dev/null 2>&1; then
    say "tests (cargo nextest run)"
    exec cargo nextest run "$@"
fi

say "tests (cargo test; with cargo-nextest installed they run one process each, with a time limit)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --no-fail-fast --lib --bins --tests "$@" 2>&1 | tee "$log" || status=$?
# One line for what cargo reports crate by crate.
awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "\n%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
