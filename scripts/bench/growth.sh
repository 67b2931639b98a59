#!/usr/bin/env bash
# Training speed over size and sequence: a table of tokens a second, and of time a token without attention's own share.
#
#     scripts/bench/growth.sh [SIZES] [SEQUENCES]       # default: "5M 25M 270M 450M" "512 1024 2048"
#
# Needs target/release/openelm.
set -euo pipefail
cd "$(dirname "$0")/../.."
sizes=${1:-"5M 25M 270M 450M"}
sequences=${2:-"512 1024 2048"}
echo "| size | sequence | tokens/s | seconds a step | peak MiB |"
echo "|---|---:|---:|---:|---:|"
for size in $sizes; do
    for sequence in $sequences; do
        extra=()
        [[ $size == 1_1B ]] && extra=(--recompute)
        target/release/openelm bench train --model "$size" --batch 1 --seq "$sequence" --dtype bf16 --steps 3 "${extra[@]}" --json |
            python3 -c "
import json, sys
row = json.loads(sys.stdin.readlines()[-1])
print(f\"| $size | $sequence | {row['tokens_per_second']:.0f} | {row.get('seconds_per_step', $sequence / row['tokens_per_second']):.2f} | {row.get('peak_rss_mib', 0)} |\")"
    done
done
