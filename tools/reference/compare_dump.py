"""Holds what `lare dump` wrote of a Hugging Face folder against transformers on the same folder, picture and prompt.

    lare dump --model DIR --image photo.jpg --prompt "What is this?" --out ours.safetensors
    python3 tools/reference/compare_dump.py DIR ours.safetensors --image photo.jpg --prompt "What is this?"

Give the images in the same order, or none; `--ids 1,2,3` where the dump had them. transformers computes in float32 with eager
attention, from the weights as they are stored, whatever their type; a dump with --dtype differs by what that type costs. One line a
kind of tensor, in the order of computation, with its largest difference as a part of the tensor's largest absolute value. Exit code 1:
one is above --tolerance (1e-4), ids or positions differ, or one of the two lacks a tensor. The first line that differs is where to look.

Needs the environment of tools/torch_environment.sh.
"""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from families import observe
from PIL import Image, ImageOps
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

IN_ORDER = ["input_ids", "image_grid_thw", "pixel_values", "vision_hidden", "deepstack", "vision", "positions", "hidden",
            "attention_row", "logits"]
EXACT = ["input_ids", "image_grid_thw", "positions"]


def inputs_of(folder, images, prompt, ids, sees):
    """What the model is given, and how a user's question becomes that is transformers' affair alone."""
    if not sees:
        tokenizer = AutoTokenizer.from_pretrained(folder) if ids is None else None
        if ids is None and tokenizer.chat_template:
            return tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        return {"input_ids": torch.tensor([ids])} if ids is not None else tokenizer(prompt, return_tensors="pt")
    if ids is not None and not images:
        return {"input_ids": torch.tensor([ids])}
    processor = AutoProcessor.from_pretrained(folder)
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": prompt or ""}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    # Opened here: apply_chat_template would drop an alpha channel, where the processor itself, given it, shows white.
    opened = [ImageOps.exif_transpose(Image.open(image)) for image in images]
    inputs = processor(text=[text], images=[opened] if opened else None, return_tensors="pt")
    if ids is not None:
        inputs["input_ids"] = torch.tensor([ids])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            image = AutoConfig.from_pretrained(folder).image_token_id
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == image).int()
    return inputs


def theirs(folder, images, prompt, ids):
    """By the names of `lare dump`, without batch axes."""
    config = AutoConfig.from_pretrained(folder)
    sees = hasattr(config, "vision_config")
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    inputs = inputs_of(folder, images, prompt, ids, sees)
    case = SimpleNamespace(smol=config.model_type in ("smolvlm", "idefics3"), vision=sees)
    if case.smol or not sees:
        inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1])[None]
    _, seen = observe(case, model, inputs, use_cache=False)
    out = {}
    for name, value in seen.items():
        if name == "positions":
            value = value.reshape(-1, value.shape[-1])
            value = np.repeat(value, 3, 0) if len(value) == 1 else value[-3:]
        elif name.startswith(("hidden", "attention", "logits")):
            value = value[0]
        out[name] = value
    for name in ("input_ids", "pixel_values"):
        if name in inputs:
            out[name] = inputs[name].numpy()
    out["input_ids"] = out["input_ids"][0]
    if case.smol and "pixel_values" in out:
        out["pixel_values"] = out["pixel_values"][0]
    if "image_grid_thw" in inputs:
        out["image_grid_thw"] = inputs["image_grid_thw"].numpy()
    return out


def kind_of(name):
    return name.split(".")[0]


def difference(ours, theirs):
    """As a part of the largest absolute value; infinite where shapes differ or something is no number."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    most = np.abs(theirs).max(initial=0.0)
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0) / max(most, 1e-30))


def compare(ours, theirs, tolerance, say=print):
    """Whether everything agrees."""
    sound = True
    for kind in IN_ORDER:
        names = sorted({name for name in [*ours, *theirs] if kind_of(name) == kind}, key=lambda n: (len(n), n))
        if not names:
            continue
        lacking = [f"{name} is not in {side}" for side, has in (("ours", ours), ("theirs", theirs)) for name in names if name not in has]
        shapes = [f"{name} is {ours[name].shape}, theirs {theirs[name].shape}"
                  for name in names if name in ours and name in theirs and ours[name].shape != theirs[name].shape]
        worst = max((difference(ours[name], theirs[name]) for name in names if name in ours and name in theirs), default=float("inf"))
        good = not lacking and worst <= (0 if kind in EXACT else tolerance)
        sound &= good
        say(f"{'  ' if good else '! '}{kind:<16}{len(names):>4}  {worst:.1e}  {'; '.join((lacking + shapes)[:3])}")
    unknown = sorted(name for name in {*ours} | {*theirs} if kind_of(name) not in IN_ORDER)
    if unknown:
        say(f"! not compared: {', '.join(unknown)}")
    return sound and not unknown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("--image", type=Path, action="append", default=[])
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt")
    asked.add_argument("--ids", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--tolerance", type=float, default=1e-4)
    given = parser.parse_args()
    expected = theirs(given.model, given.image, given.prompt, given.ids)
    sys.exit(0 if compare(load_file(given.ours), expected, given.tolerance) else 1)


if __name__ == "__main__":
    main()
