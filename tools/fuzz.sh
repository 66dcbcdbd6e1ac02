#!/usr/bin/env bash
# Runs every fuzz target for a while, on the corpora that are kept beside them. Works with a stable toolchain.
#
#   tools/fuzz.sh [SECONDS]    # for each target; by default 30
#
# Installs cargo-fuzz where it is missing; exit code 3: it cannot be, and nothing was run. An input that fails is left in
# fuzz/artifacts/TARGET and ends the script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# One seed: a gate that fails by chance says nothing of a change.
seconds="${1:-30}"
cargo fuzz --version > /dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet || exit 3

# Coverage alone: address sanitizing needs a nightly toolchain. Panics, overflows, hangs and memory are what this finds.
build=(--sanitizer none --release)
cargo fuzz build "${build[@]}"

# What is found goes to fuzz/found, which is not kept; fuzz/corpus holds the inputs worth keeping.
run() {
    local target="$1"
    mkdir -p "fuzz/found/$target" "fuzz/corpus/$target"
    cargo fuzz run "${build[@]}" "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 -max_len=65536 -print_final_stats=1 -seed=1 \
        > "fuzz/found/$target.log" 2>&1
}
mapfile -t targets < <(cargo fuzz list)
failed=()
# Two at a time: each takes one core.
for ((first = 0; first < ${#targets[@]}; first += 2)); do
    declare -A running=()
    for target in "${targets[@]:first:2}"; do
        run "$target" &
        running[$target]=$!
    done
    for target in "${!running[@]}"; do
        wait "${running[$target]}" || failed+=("$target")
        echo "== fuzz $target, $seconds s"
        grep -vE '^#[0-9]+' "fuzz/found/$target.log" | tail -n 30
    done
    unset running
done
if ((${#failed[@]})); then
    echo "error: failed: ${failed[*]}" >&2
    exit 1
fi
