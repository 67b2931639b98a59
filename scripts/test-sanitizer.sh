#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer: every body of unsafe code that this processor can run, on random and edge shapes.
#
#     scripts/test-sanitizer.sh
#
# Needs a nightly toolchain (rustup toolchain install nightly). Builds in a target folder of its own, some minutes the first time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! rustc +nightly --version > /dev/null 2>&1; then
    echo "error: there is no nightly toolchain" >&2
    echo "hint: rustup toolchain install nightly" >&2
    exit 1
fi
# Thread pools live as long as the process: what they hold is no leak.
export ASAN_OPTIONS=detect_leaks=0
export RUSTFLAGS="-Zsanitizer=address -Cdebuginfo=0"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/sanitizer}"
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
exec cargo +nightly test --release -p "${PACKAGE:-openelm-kernels}" --target "$host" --lib --tests "$@"
