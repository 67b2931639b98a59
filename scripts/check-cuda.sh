#!/usr/bin/env bash
# Type-checks the program with the cuda feature. No GPU and no CUDA toolkit are needed: the CUDA library is loaded at run time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo check --release --features cuda
