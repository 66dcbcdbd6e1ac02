#!/usr/bin/env bash
# Runs every fuzz target for a while, on the corpora that are kept beside them. Works with a stable toolchain.
#
#   tools/fuzz.sh [SECONDS]    # for each target; by default 60
#
# Installs cargo-fuzz where it is missing; exit code 3: it cannot be, and nothing was run. An input that fails is left in
# fuzz/artifacts/TARGET and ends the script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# One seed: a gate that fails by chance says nothing of a change.
seconds="${1:-60}"
cargo fuzz --version > /dev/null 2>&1 || cargo install cargo-fuzz --locked --quiet || exit 3

# Coverage alone: address sanitizing needs a nightly toolchain. Panics, overflows, hangs and memory are what this finds.
build=(--sanitizer none --release)
for target in $(cargo fuzz list); do
    echo "== fuzz $target for $seconds s"
    # What is found goes to fuzz/found, which is not kept; fuzz/corpus holds the inputs worth keeping.
    mkdir -p "fuzz/found/$target" "fuzz/corpus/$target"
    cargo fuzz run "${build[@]}" "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=4096 -timeout=20 -max_len=65536 -print_final_stats=1 -seed=1 2>&1 |
        grep -vE '^#[0-9]+' | tail -n 30
done
