#!/usr/bin/env bash
# lmms-eval, as published, measures a server of this tree over a small task of files, and what it wrote down is compared with what
# `lare eval` says of the same questions: the same answers, word for word.
#
#   tools/clients/lmms_eval.sh [PROGRAM]      # by default target/debug/lare, built first
#
# Needs the environment of tools/torch_environment.sh. Exit code 3: it could not be made, and nothing was run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

program="${1:-target/debug/lare}"
[[ $# -gt 0 ]] || cargo build --workspace --bin lare # as the tests build it: nothing is built twice
tools/torch_environment.sh || exit 3
python=target/torch/bin/python

source tools/start_server.sh
start_server "$program"

tasks=read,hop count=12
work="$server_work/lmms-eval"
mkdir "$work"
"$program" make-data --split iid --tasks "$tasks" --count "$count" --format parquet --out "$work/suite.parquet" > /dev/null
cp tools/clients/lmms_task/* "$work"
sed -i "s#SUITE#$work/suite.parquet#" "$work/refocus_suite.yaml"
HF_HOME="$work" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OPENAI_API_KEY=unused "$python" -m lmms_eval eval \
    --model openai_compatible --model_args "model=lare-nano,base_url=$url/v1,num_concurrent=8" \
    --tasks refocus_suite --include_path "$work" --batch_size 1 --log_samples --output_path "$work/out" \
    > "$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; server_failed; }
"$program" eval --split iid --tasks "$tasks" --count "$count" --out "$work/eval" > /dev/null
"$python" - "$work" << 'PYTHON'
import glob
import json
import sys

work = sys.argv[1]
[samples] = glob.glob(f"{work}/out/*/*_samples_refocus_suite.jsonl")
logged = {sample["doc_id"]: sample for sample in map(json.loads, open(samples))}
items = [json.loads(line) for line in open(f"{work}/eval/items.jsonl")]
assert len(logged) == len(items) > 0, (len(logged), len(items))
for number, item in enumerate(items):
    sample = logged[number]
    assert sample["input"] == item["prompt"], (sample["input"], item["prompt"])
    assert sample["filtered_resps"] == item["said"], (item["id"], sample["filtered_resps"], item["said"])
    assert bool(sample["right"]) == (item["outcome"] == "correct"), item["id"]
    counted, usage = sample["token_counts"][0], item["usage"]
    assert counted["reasoning_tokens"] == usage["latent_steps"], (item["id"], counted, usage)
    assert counted["output_tokens"] == usage["text_tokens"] + usage["latent_steps"], (item["id"], counted, usage)
right = sum(item["outcome"] == "correct" for item in items)
print(f"lmms-eval: {len(items)} answers, {right} right, the same as lare eval's, with as many text tokens and latent steps")
PYTHON
