#!/usr/bin/env bash
# Makes target/torch once: a Python environment with PyTorch, transformers and lmms-eval, for reference values and real clients.
# About 6 GB, most of it libraries for accelerators that PyPI's PyTorch does not start without. Exit code 3: it cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=target/torch
mkdir -p target
exec 9> "$environment.lock" # a caller may have begun it in the background
flock 9
[[ ! -e "$environment/whole" ]] || exit 0
rm -rf "$environment"
{
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --no-cache-dir --requirement tools/torch_requirements.txt
    # What it asks for besides is for other models and other tasks, and some of it contradicts the rest.
    "$environment/bin/pip" install --quiet --no-cache-dir --no-deps lmms-eval==0.7.3
} || exit 3
touch "$environment/whole"
