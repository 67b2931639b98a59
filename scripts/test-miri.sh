#!/usr/bin/env bash
# The kernels' unit tests in Miri, which interprets every instruction and knows what each pointer may touch: plain bodies, buffers, threads,
# and the model of AMX tiles. It has no vector instructions of these processors; AddressSanitizer (test-sanitizer.sh) sees their bodies.
#
#     scripts/test-miri.sh [TEST...]
#
# Needs a nightly toolchain with Miri (rustup toolchain install nightly --component miri,rust-src). Builds in a target folder of its own,
# 10 minutes the first time. A test is given MIRI_SECONDS (150): what takes longer is named, and counts as neither right nor wrong.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! cargo +nightly miri --version > /dev/null 2>&1; then
    echo "error: there is no Miri" >&2
    echo "hint: rustup toolchain install nightly --component miri,rust-src" >&2
    exit 1
fi
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/miri}"
# Tests read the clock and the number of processors; thread pools live as long as the process; sines are the same each time.
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-deterministic-floats"
miri() { cargo +nightly miri test --quiet -p openelm-kernels --lib -- "$@"; }
if [[ $# -eq 0 ]]; then
    mapfile -t tests < <(miri --list | sed -n 's/: test$//p')
    set -- "${tests[@]}"
fi
export -f miri
failed=0 slow=0
for test in "$@"; do
    status=0
    output=$(timeout "${MIRI_SECONDS:-150}" bash -c 'miri --exact "$1"' _ "$test" 2>&1) || status=$?
    case $status in
        0) echo "ok       $test" ;;
        124) echo "too slow $test"; slow=$((slow + 1)) ;;
        *) echo "FAILED   $test"; echo "$output"; failed=$((failed + 1)) ;;
    esac
done
echo "$# tests: $failed failed, $slow too slow"
exit $((failed > 0))
