#!/usr/bin/env bash
# Every family against transformers, made anew: tiny checkpoints of all cases of tools/reference/families.py, also those that are
# too many to commit, and the tests of crates/model that compare them; JPEG files against Pillow (tools/reference/jpegs.py); and
# what `lare dump` writes of folders of random shapes (tools/reference/fresh_folders.py).
#
#   tools/reference/parity.sh [COUNT]      # folders of each family, and a hundred times as many JPEG files; by default 1
#
# LARE names the program; by default target/release/lare, else target/debug/lare. Needs the environment of tools/torch_environment.sh. Exit code 3: it could not be made, and nothing was run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

count="${1:-1}"
tools/torch_environment.sh || exit 3
made="$(mktemp -d)"
trap 'rm -rf "$made"' EXIT
target/torch/bin/python tools/reference/families.py "$made" > /dev/null
echo "made $(find "$made" -name golden.safetensors | wc -l) checkpoints: $(ls "$made" | tr '\n' ' ')"
LARE_FAMILIES="$made" cargo test --workspace --test families

mkdir "$made/jpegs"
target/torch/bin/python tools/reference/jpegs.py "$made/jpegs" --count "${count}00"
LARE_JPEGS="$made/jpegs" cargo test --workspace --lib -- jpegs_show

lare="${LARE:-target/release/lare}"
if [[ -z "${LARE:-}" && ! -x "$lare" ]]; then
    lare=target/debug/lare
fi
target/torch/bin/python tools/reference/fresh_folders.py --lare "$lare" --count "$count"
