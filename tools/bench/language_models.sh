#!/usr/bin/env bash
# A language model in the shape of Qwen2.5-1.5B, random weights: this tree, llama.cpp and PyTorch, taking turns on this machine.
#
#   tools/bench/language_models.sh [ROUNDS]      # by default 3
#
# Builds llama.cpp's llama-bench from the sources that PyPI's llama-cpp-python carries (needs a C++ compiler; about ten minutes),
# and gets PyTorch with tools/torch_environment.sh (6 GB). Nothing else should run meanwhile. Exit code 3: one of them cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

threads="$(nproc)" place=target/llama version=0.3.36
tools/torch_environment.sh || exit 3
python=target/torch/bin/python

if [[ ! -x $place/build/bin/llama-bench ]]; then
    rm -rf "$place" && mkdir -p "$place"
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$place" "llama-cpp-python==$version" || exit 3
    tar -xzf "$place"/llama_cpp_python-*.tar.gz -C "$place" --strip-components 1
    python3 -m venv "$place/tools"
    "$place/tools/bin/pip" install --quiet cmake ninja gguf || exit 3
    PATH="$PWD/$place/tools/bin:$PATH" cmake -G Ninja -S "$place/vendor/llama.cpp" -B "$place/build" -DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release \
        -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF > "$place/log" 2>&1
    PATH="$PWD/$place/tools/bin:$PATH" cmake --build "$place/build" --target llama-bench >> "$place/log" 2>&1
fi
for kind in q8_0 q4_k; do
    [[ -e $place/$kind.gguf ]] || "$place/tools/bin/python" tools/bench/random_gguf.py "$kind" "$place/$kind.gguf"
    # Read from the disk once, as the other side's folder is: see read_again in crates/model/benches/whole.rs.
    python3 -c 'import os, sys; file = os.open(sys.argv[1], os.O_RDONLY); os.fsync(file); os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)' "$place/$kind.gguf"
done
cargo bench --package lare-model --bench whole --no-run

for round in $(seq "${1:-3}"); do
    echo "== round $round"
    cargo bench --quiet --package lare-model --bench whole
    for kind in q8_0 q4_k; do
        "$place/build/bin/llama-bench" -m "$place/$kind.gguf" -p 64 -n 32 -t "$threads" -r 3 2> /dev/null | grep -E 'pp64|tg32'
    done
    for dtype in f32 bf16; do
        "$python" tools/bench/torch_language.py "$dtype"
    done
done
