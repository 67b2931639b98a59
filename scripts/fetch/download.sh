# What the fetch scripts share; sourced, not run. Needs curl, or the Hugging Face client for its data sets.

# The folder that holds data/corpora, whatever folder a script is called from.
fetch_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# Sets `out`, `files` (0: all) and `dry_run` from the arguments that every script takes; the rest stays in `rest`.
fetch_arguments() {
    out="$fetch_root/data/corpora"
    files=0
    dry_run=0
    rest=()
    while [ $# -gt 0 ]; do
        case "$1" in
            --out) out="${2:?--out needs a folder}"; shift 2 ;;
            --files) files="${2:?--files needs a number}"; shift 2 ;;
            --dry-run) dry_run=1; shift ;;
            --help | -h)
                sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
                exit 0
                ;;
            -*) echo "error: unknown argument $1" >&2; echo "hint: $0 --help" >&2; exit 2 ;;
            *) rest+=("$1"); shift ;;
        esac
    done
    case "$files" in
        *[!0-9]* | "") echo "error: --files $files is not a number" >&2; exit 2 ;;
    esac
}

# fetch_url URL FILE: downloads aside, goes on where an earlier call stopped, and gives the name only to a whole file.
fetch_url() {
    local url="$1" file="$2"
    if [ -e "$file" ]; then
        return 0
    fi
    echo "$url -> $file"
    if [ "$dry_run" = 1 ]; then
        return 0
    fi
    mkdir -p "$(dirname "$file")"
    # Shards that are gzip files already must not be unpacked on the way: "identity" asks for them as they are.
    local get=(curl --fail --location --retry 5 --retry-delay 10 --header 'Accept-Encoding: identity' --output "$file.part" "$url")
    local status=0
    "${get[@]}" --continue-at - || status=$?
    # 33: the server cannot go on in the middle.
    if [ "$status" = 33 ]; then
        rm -f "$file.part"
        status=0
        "${get[@]}" || status=$?
    fi
    if [ "$status" != 0 ]; then
        echo "error: $url could not be fetched (curl ended with $status)" >&2
        echo "hint: call the script again; it goes on from $file.part" >&2
        exit 1
    fi
    mv "$file.part" "$file"
}

# fetch_list FILE URL: a list of URLs, fetched once.
fetch_list() {
    local file="$1" url="$2"
    if [ -s "$file" ]; then
        return 0
    fi
    mkdir -p "$(dirname "$file")"
    curl --fail --location --retry 5 --silent --show-error --output "$file.part" "$url"
    mv "$file.part" "$file"
}

# fetch_hub REPOSITORY FOLDER PATTERN...: files of a Hugging Face data set, placed in FOLDER without their own folders.
fetch_hub() {
    local repository="$1" folder="$2" client
    shift 2
    if command -v hf > /dev/null; then
        client=hf
    elif command -v huggingface-cli > /dev/null; then
        client=huggingface-cli
    else
        client=""
    fi
    local include=()
    for pattern in "$@"; do
        include+=(--include "$pattern")
    done
    if [ "$dry_run" = 1 ]; then
        echo "${client:-hf} download $repository --repo-type dataset ${include[*]} -> $folder"
        return 0
    fi
    if [ -z "$client" ]; then
        echo "error: the Hugging Face client is missing" >&2
        echo "hint: pip install huggingface_hub" >&2
        exit 1
    fi
    mkdir -p "$folder"
    # The client resumes inside its own folder; the shards get second names (hard links) where the configurations look.
    "$client" download "$repository" --repo-type dataset "${include[@]}" --local-dir "$folder/.hub"
    find "$folder/.hub" -name '*.parquet' -not -path '*/.cache/*' -exec sh -c 'ln -f "$1" "$2/$(basename "$1")"' _ {} "$folder" \;
}

# fetch_limit: passes on the first `files` lines, or all.
fetch_limit() {
    if [ "$files" -gt 0 ]; then
        head -n "$files"
    else
        cat
    fi
}
