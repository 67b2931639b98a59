#!/usr/bin/env bash
# The model's and the training step's reference tests on libtorch, through burn-tch. Needs a Python with torch 2.9.0:
#
#     python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.9.0 numpy
#     PATH=/tmp/torch/bin:$PATH scripts/test-tch.sh
#
# Not part of .ci/run, because libtorch is several gigabytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder="$(python3 -c 'import torch, os; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')" || {
    echo "error: python3 has no torch" >&2
    echo "hint: pip install torch==2.9.0, and put that Python first in PATH" >&2
    exit 1
}
export LIBTORCH_USE_PYTORCH=1
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPENELM_TEST_DEVICE=tch
cargo test --release -p openelm-model -p openelm-train --features openelm-model/tch --test reference -- --test-threads=1
