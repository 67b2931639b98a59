#!/usr/bin/env bash
# Subsets of RedPajama-Data-1T (JSON lines) into data/corpora/redpajama/<subset>.
#
#     scripts/fetch/redpajama.sh [SUBSET...] [--files N] [--out FOLDER] [--dry-run]
#
# Subsets: github arxiv wikipedia stackexchange c4 book; all six when none is named. --files N takes the first N files of each.
# The publisher has withdrawn book; if the list still names it, the server may refuse it.
# Licences: those of the sources; see data/README.md.
# Published through https://data.together.xyz/redpajama-data-1T/v1.0.0/urls.txt (REDPAJAMA_URLS names another list).
# Not tried against the real server.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/download.sh"
fetch_arguments "$@"

list="$out/redpajama/urls.txt"
fetch_list "$list" "${REDPAJAMA_URLS:-https://data.together.xyz/redpajama-data-1T/v1.0.0/urls.txt}"
[ ${#rest[@]} -gt 0 ] || rest=(github arxiv wikipedia stackexchange c4 book)
for subset in "${rest[@]}"; do
    case "$subset" in
        github | arxiv | wikipedia | stackexchange | c4 | book) ;;
        *) echo "error: unknown subset $subset" >&2; echo "hint: github arxiv wikipedia stackexchange c4 book" >&2; exit 2 ;;
    esac
    urls="$(grep "/$subset/[^/]*\.jsonl" "$list" | fetch_limit || true)"
    if [ -z "$urls" ]; then
        echo "error: $list names no file of $subset" >&2
        echo "hint: delete the list and fetch it again, or leave the subset out" >&2
        exit 1
    fi
    while IFS= read -r url; do
        fetch_url "$url" "$out/redpajama/$subset/$(basename "$url")"
    done <<< "$urls"
done
