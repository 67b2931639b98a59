#!/usr/bin/env bash
# burn's operations on the wgpu device with a software Vulkan adapter: each of them against f64 arithmetic, the training step against the CPU
# kernels, and the model and the step against CoreNet's values.
#
#     scripts/test-wgpu.sh                       # Debian's mesa-vulkan-drivers; installed when missing and permitted
#     OPENELM_TEST_DEVICE=wgpu scripts/test-wgpu.sh   # a real adapter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 && [ -z "${OPENELM_TEST_DEVICE:-}" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1 >/dev/null
    else
        echo "error: no software Vulkan driver" >&2
        echo "hint: install mesa-vulkan-drivers, or set OPENELM_TEST_DEVICE=wgpu to use a graphics card" >&2
        exit 1
    fi
fi
export OPENELM_TEST_DEVICE="${OPENELM_TEST_DEVICE:-wgpu:cpu}"
cargo test --release -p openelm-model -p openelm-train --features openelm-model/wgpu \
    --lib --test operations --test engines --test reference -- --test-threads=1
