#!/usr/bin/env bash
# The kernels' tests on Arm (64 bits), emulated: on a processor with everything, and on one with neither dot products nor bf16.
# On an Arm machine they run on the processor that is there.
#
#     scripts/test-arm.sh                       # all tests
#     scripts/test-arm.sh --test matmul         # what cargo test takes
#     CPUS="max" scripts/test-arm.sh            # one processor of qemu's
#     PACKAGE=openelm-infer scripts/test-arm.sh --test host_engine   # the engine on llama.cpp's files, for some minutes
#
# Needs: rustup target add aarch64-unknown-linux-gnu; Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package="${PACKAGE:-openelm-kernels}"
if [ "$(uname -m)" = aarch64 ] || [ "$(uname -m)" = arm64 ]; then
    exec cargo test --release -p "$package" "$@"
fi

target=aarch64-unknown-linux-gnu
for program in aarch64-linux-gnu-gcc qemu-aarch64; do
    if ! command -v "$program" >/dev/null; then
        echo "error: $program is missing" >&2
        echo "hint: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2
        exit 1
    fi
done
if ! ls "$(rustc --print sysroot)/lib/rustlib/$target/lib" >/dev/null 2>&1; then
    echo "error: Rust's standard library for $target is missing" >&2
    echo "hint: rustup target add $target" >&2
    exit 1
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for cpu in ${CPUS:-max cortex-a72}; do
    echo "== $cpu"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu" \
        cargo test --release -p "$package" --target "$target" "$@"
done
