#!/usr/bin/env bash
# Trains the same model with f32 and with bf16 products on the same batches and prints both curves as a table.
#
#     scripts/bench/precision.sh [FOLDER]
#
# Needs the folder `shared` with real text beside the checkout, and target/release/openelm.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-$(mktemp -d)}
mkdir -p "$out"
for dtype in f32 bf16; do
    target/release/openelm train scripts/bench/precision.yaml --out "$out/$dtype" --set training.dtype=$dtype > "$out/$dtype.out" 2> "$out/$dtype.log"
done
python3 - "$out" <<'PYTHON'
import json, sys

runs = {}
for dtype in ("f32", "bf16"):
    rows = [json.loads(line) for line in open(f"{sys.argv[1]}/{dtype}/metrics.jsonl")]
    train = {row["step"]: row["ce_loss"] for row in rows if "ce_loss" in row}
    held = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    runs[dtype] = train, held
print("| step | training loss (mean of 25 steps), f32 | bf16 | validation loss, f32 | bf16 | bf16 / f32 |")
print("|---:|---:|---:|---:|---:|---:|")
for step in sorted(runs["f32"][1]):
    means = [sum(runs[d][0][s] for s in range(step - 24, step + 1)) / 25 for d in runs]
    held = [runs[d][1][step] for d in runs]
    print(f"| {step} | {means[0]:.4f} | {means[1]:.4f} | {held[0]:.4f} | {held[1]:.4f} | {held[1] / held[0]:.5f} |")
PYTHON
