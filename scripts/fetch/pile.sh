#!/usr/bin/env bash
# The Pile, deduplicated: 1 650 parquet shards (about 451 GB) into data/corpora/pile.
#
#     scripts/fetch/pile.sh [--files N] [--out FOLDER] [--dry-run]
#
# --files N takes the first N shards. Licence: each of its 22 parts has its own, and some are disputed; see data/README.md.
# Published as https://huggingface.co/datasets/EleutherAI/the_pile_deduplicated, data/train-00000-of-01650-....parquet.
# Not tried against the real server.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/download.sh"
fetch_arguments "$@"

patterns=()
if [ "$files" -gt 0 ]; then
    for ((shard = 0; shard < files; shard++)); do
        patterns+=("$(printf 'data/train-%05d-of-01650*.parquet' "$shard")")
    done
else
    patterns+=('data/train-*-of-01650*.parquet')
fi
fetch_hub EleutherAI/the_pile_deduplicated "$out/pile" "${patterns[@]}"
