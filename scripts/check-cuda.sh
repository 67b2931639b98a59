#!/usr/bin/env bash
# Type-checks the program with the cuda feature. No GPU and no CUDA toolkit are needed: the CUDA library is loaded at run time.
#
# CubeCL compiles its CUDA kernels with an LLVM that its build script downloads. A type check does not link it, so DOCS_RS, which that
# script honours, leaves the download out; `cargo build --features cuda` needs the network once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DOCS_RS=1 cargo check --release --features cuda
