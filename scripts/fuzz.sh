#!/usr/bin/env bash
# Coverage-guided fuzzing (libFuzzer, AddressSanitizer) of everything that reads files of others.
#
#     scripts/fuzz.sh [SECONDS_PER_TARGET [TARGET...]]
#
# Runs every target (fuzz/fuzz_targets) for 60 seconds, or those named for as long as is said, one after the other; prints executions
# and covered edges, and fails where one finds a panic, a hang or memory that the input does not justify. Inputs that widen the coverage
# are kept in fuzz/corpus/TARGET, findings in fuzz/artifacts/TARGET; with 0 seconds, a target goes through the kept inputs once.
# Needs a nightly toolchain (rustup toolchain install nightly) and a C++ compiler. `cargo fuzz` works in the folder too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"
if ! rustc +nightly --version > /dev/null 2>&1; then
    echo "error: there is no nightly toolchain" >&2
    echo "hint: rustup toolchain install nightly" >&2
    exit 1
fi
seconds=${1:-60}
shift || true
known=$(basename -a -s .rs fuzz_targets/*.rs)
targets=("$@")
if [ ${#targets[@]} = 0 ]; then mapfile -t targets <<< "$known"; fi
for target in "${targets[@]}"; do
    if ! grep -qx "$target" <<< "$known"; then
        echo "error: no target $target" >&2
        echo "hint: $(tr '\n' ' ' <<< "$known")" >&2
        exit 1
    fi
done

# With --target, the flags are for the targets alone, not for build scripts. One build serves the targets and the seeds.
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
cargo +nightly build --locked --release --target "$host" --bins --examples
built=target/$host/release

# Files of targets live in memory where the system has room for such, and go with the script.
scratch=$(mktemp -d -p /dev/shm 2> /dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
"$built/examples/seeds" "$scratch/seeds"

failed=()
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    options=(-timeout=20 -rss_limit_mb=3072 -malloc_limit_mb=64 -max_len=65536 -len_control=20)
    case $target in
        # `zstd --long=31` asks for a window of 2 GiB, which is read; it costs address space until it is filled.
        corpus_lines) options+=(-malloc_limit_mb=2304 -max_len=4096) ;;
        corpus_parquet) options+=(-malloc_limit_mb=2304 -max_len=16384) ;;
    esac
    if [ -f "dictionaries/$target" ]; then options+=(-dict="dictionaries/$target"); fi
    limit=(-max_total_time="$seconds")
    if [ "$seconds" = 0 ]; then limit=(-runs=0); fi
    log=$scratch/$target.log
    if "$built/$target" "${options[@]}" "${limit[@]}" -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
        "corpus/$target" "$scratch/seeds/$target" > "$log" 2>&1; then
        result=ok
    else
        result=FAILED
        failed+=("$target")
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
    printf '%-18s %-7s %10s executions, %6s edges, %5s inputs kept\n' \
        "$target" "$result" "${runs:-?}" "${edges:-?}" "$(find "corpus/$target" -type f | wc -l)"
    if [ $result = FAILED ]; then grep -vE '^#[0-9]+' "$log" | tail -60 >&2; fi
done
if [ ${#failed[@]} != 0 ]; then
    echo "error: findings in ${failed[*]}" >&2
    echo "hint: the inputs lie in fuzz/artifacts/TARGET; give one as the only argument to fuzz/$built/TARGET" >&2
    exit 1
fi
