#!/usr/bin/env bash
# Subsets of Dolma v1.6 (gzip JSON lines) into data/corpora/dolma/<subset>.
#
#     scripts/fetch/dolma.sh [SUBSET...] [--files N] [--out FOLDER] [--dry-run]
#
# Subsets: stack reddit pes2o books wiki; all five when none is named. --files N takes the first N files of each.
# Licence: ODC-By 1.0, and those of the sources; see data/README.md.
# Published through https://huggingface.co/datasets/allenai/dolma, urls/v1_6.txt (DOLMA_URLS names another list).
# Not tried against the real server.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/download.sh"
fetch_arguments "$@"

list="$out/dolma/v1_6.txt"
fetch_list "$list" "${DOLMA_URLS:-https://huggingface.co/datasets/allenai/dolma/resolve/main/urls/v1_6.txt}"
[ ${#rest[@]} -gt 0 ] || rest=(stack reddit pes2o books wiki)
for subset in "${rest[@]}"; do
    # By file name: the folders of the list are named otherwise in every version.
    case "$subset" in
        stack) name='stack-v4-train-' ;;
        reddit) name='reddit-v5-dedupe-pii-nsfw-toxic-' ;;
        pes2o) name='pes2o_v2-' ;;
        books) name='books-' ;;
        wiki) name='en_simple_wiki_v0-' ;;
        *) echo "error: unknown subset $subset" >&2; echo "hint: stack reddit pes2o books wiki" >&2; exit 2 ;;
    esac
    urls="$(grep "/$name[0-9]*\.json\.gz" "$list" | fetch_limit || true)"
    if [ -z "$urls" ]; then
        echo "error: $list names no file that begins with $name" >&2
        echo "hint: delete the list and fetch it again, or leave the subset out" >&2
        exit 1
    fi
    while IFS= read -r url; do
        fetch_url "$url" "$out/dolma/$subset/$(basename "$url")"
    done <<< "$urls"
done
