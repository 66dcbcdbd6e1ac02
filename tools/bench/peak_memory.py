#!/usr/bin/env python3
"""Peak memory of `lare ask` on random weights in the shape of Qwen2.5-VL-3B, in bf16, against the size of its file.

    tools/bench/peak_memory.py --lare target/release/lare --place /tmp [--limit 1.2] [--dtype bf16] [--keep]

Writes a folder of about 7.5 GB below PLACE: true sizes, names, vocabulary and processor limits, weights from one block of random
numbers again and again, text files of fixtures/. Asks one question on a picture, and removes the folder.

What is measured: `ru_maxrss` of the ended program, which the kernel keeps: the most of its memory that was resident at one time. Pages
of the mapped weights count as soon as they are touched, those of the heap too; what other programs share of them is not taken off. While it runs,
/proc/PID/status is read every 50 ms, to tell mapped pages (RssFile) from the program's own (RssAnon). Exit code 1: above the limit.
Needs Linux and nothing beyond Python's standard library.
"""
import argparse
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
FAMILY = "qwen2_5_vl"
TEXT = {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "intermediate_size": 11008,
        "vocab_size": 151936, "max_position_embeddings": 128000, "max_window_layers": 70}
VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "patch_size": 14, "out_hidden_size": 2048,
          "window_size": 112, "spatial_merge_size": 2, "temporal_patch_size": 2, "fullatt_block_indexes": [7, 15, 23, 31]}
SECTIONS = [16, 24, 24]
PROCESSOR = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "min_pixels": 3136, "max_pixels": 12845056}
HEAD_WIDTH = TEXT["hidden_size"] // TEXT["num_attention_heads"]
# Numbers of the block that weights are copied from: odd, so that rows do not repeat each other.
BLOCK = 1_048_573


def tensors():
    """Names and shapes of all tensors, in the order of the file."""
    d, f, kv = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["num_key_value_heads"] * HEAD_WIDTH
    yield "model.embed_tokens.weight", [TEXT["vocab_size"], d]
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, rows in [("q", d), ("k", kv), ("v", kv)]:
            yield f"{layer}self_attn.{name}_proj.weight", [rows, d]
            yield f"{layer}self_attn.{name}_proj.bias", [rows]
        yield f"{layer}self_attn.o_proj.weight", [d, d]
        yield f"{layer}mlp.gate_proj.weight", [f, d]
        yield f"{layer}mlp.up_proj.weight", [f, d]
        yield f"{layer}mlp.down_proj.weight", [d, f]
        yield f"{layer}input_layernorm.weight", [d]
        yield f"{layer}post_attention_layernorm.weight", [d]
    yield "model.norm.weight", [d]
    v, f, patch = VISION["hidden_size"], VISION["intermediate_size"], VISION["patch_size"]
    yield "visual.patch_embed.proj.weight", [v, 3, VISION["temporal_patch_size"], patch, patch]
    for i in range(VISION["depth"]):
        block = f"visual.blocks.{i}."
        for name, rows, cols in [("attn.qkv", 3 * v, v), ("attn.proj", v, v), ("mlp.gate_proj", f, v), ("mlp.up_proj", f, v),
                                 ("mlp.down_proj", v, f)]:
            yield f"{block}{name}.weight", [rows, cols]
            yield f"{block}{name}.bias", [rows]
        yield f"{block}norm1.weight", [v]
        yield f"{block}norm2.weight", [v]
    merged = v * VISION["spatial_merge_size"] ** 2
    yield "visual.merger.ln_q.weight", [v]
    yield "visual.merger.mlp.0.weight", [merged, merged]
    yield "visual.merger.mlp.0.bias", [merged]
    yield "visual.merger.mlp.2.weight", [VISION["out_hidden_size"], merged]
    yield "visual.merger.mlp.2.bias", [VISION["out_hidden_size"]]


def count(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def bf16(number):
    return struct.pack("<f", number)[2:]


def write_weights(path):
    dice = random.Random(7)
    block = b"".join(bf16(dice.gauss(0.0, 0.02)) for _ in range(BLOCK))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * count(shape)]}
        at += 2 * count(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        place = 0
        for name, shape in tensors():
            left = 2 * count(shape)
            if len(shape) == 1:
                out.write((bf16(0.0) if name.endswith("bias") else bf16(1.0)) * count(shape))
                continue
            while left:
                part = block[place : place + left]
                out.write(part)
                left -= len(part)
                place = (place + len(part)) % len(block)


def write_folder(folder):
    for name in ["chat_template.json", "tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(FIXTURES / "chat" / FAMILY / name, folder / name)
    config = json.loads((FIXTURES / "folders" / FAMILY / "config.json").read_text())
    config["text_config"].update(TEXT)
    config["text_config"]["layer_types"] = ["full_attention"] * TEXT["num_hidden_layers"]
    config["text_config"]["rope_parameters"]["mrope_section"] = SECTIONS
    config["vision_config"].update(VISION)
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((FIXTURES / "chat" / FAMILY / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, **PROCESSOR}))
    generation = json.loads((FIXTURES / "chat" / FAMILY / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation))
    write_weights(folder / "model.safetensors")


def watch(pid, most, ended):
    """The most of each kind of resident memory, in KiB."""
    while not ended.wait(0.05):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            key, _, value = line.partition(":")
            if key in ("VmHWM", "RssAnon", "RssFile"):
                most[key] = max(most.get(key, 0), int(value.split()[0]))


def ask(arguments, folder):
    command = [arguments.lare, "ask", "--model", folder, arguments.picture, "What is this?", "--max-tokens", str(arguments.tokens), "--json"]
    if arguments.dtype:
        command += ["--dtype", arguments.dtype]
    begun, most, ended = time.time(), {}, threading.Event()
    with open(folder / "answer.json", "w+b") as out:
        program = subprocess.Popen([str(part) for part in command], stdout=out)
        watcher = threading.Thread(target=watch, args=(program.pid, most, ended))
        watcher.start()
        _, status, used = os.wait4(program.pid, 0)
        ended.set()
        watcher.join()
        program.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if program.returncode != 0:
        sys.exit(f"lare ask ended with {program.returncode}")
    return used.ru_maxrss * 1024, most, time.time() - begun, json.loads(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lare", required=True, help="the program")
    parser.add_argument("--place", required=True, help="a folder with 8 GB of room; not one in memory")
    parser.add_argument("--limit", type=float, default=1.2, help="the most memory, in sizes of the file")
    parser.add_argument("--dtype", help="convert the matrices while loading; by default they stay bf16, mapped")
    parser.add_argument("--tokens", type=int, default=8, help="tokens of the answer")
    parser.add_argument("--picture", default=FIXTURES / "folders" / FAMILY / "photo.png", help="what is asked about; a small one by default")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qwen2_5_vl-3b-", dir=arguments.place))
    try:
        begun = time.time()
        write_folder(folder)
        size = (folder / "model.safetensors").stat().st_size
        print(f"{folder}: {size / 1e9:.2f} GB of weights, written in {time.time() - begun:.0f} s")
        peak, most, seconds, told = ask(arguments, folder)
        usage = told["usage"]
        print(f"asked in {seconds:.0f} s: {usage['prompt_tokens']} prompt tokens, {usage['image_tokens']} of them of the picture, "
              f"{usage['text_tokens']} of the answer")
        parts = ", ".join(f"{key} at most {value / 1e9:.2f} GB" for key, value in sorted((k, v * 1024) for k, v in most.items()))
        print(f"resident at most {peak / 1e9:.2f} GB, {peak / size:.3f} x the file ({parts})")
        print(json.dumps({"file_bytes": size, "peak_bytes": peak, "ratio": peak / size, "kib": most, "limit": arguments.limit,
                          "dtype": arguments.dtype or "as stored"}))
        return 0 if peak <= arguments.limit * size else 1
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
