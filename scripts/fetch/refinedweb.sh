#!/usr/bin/env bash
# RefinedWeb: 5 534 parquet shards (about 467 GB) into data/corpora/refinedweb.
#
#     scripts/fetch/refinedweb.sh [--files N] [--out FOLDER] [--dry-run]
#
# --files N takes the first N shards. Licence: ODC-By 1.0, and Common Crawl's terms of use.
# Published as https://huggingface.co/datasets/tiiuae/falcon-refinedweb, data/train-00000-of-05534-....parquet.
# Not tried against the real server.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/download.sh"
fetch_arguments "$@"

patterns=()
if [ "$files" -gt 0 ]; then
    for ((shard = 0; shard < files; shard++)); do
        patterns+=("$(printf 'data/train-%05d-of-05534*.parquet' "$shard")")
    done
else
    patterns+=('data/train-*-of-05534*.parquet')
fi
fetch_hub tiiuae/falcon-refinedweb "$out/refinedweb" "${patterns[@]}"
